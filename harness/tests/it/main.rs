//! Integration tests of the harness, one module per subject.

mod client_faults;
mod environment_process_faults;
mod environment_processes;
mod environment_replicas;
mod environment_servers;
mod environment_store_faults;
mod environment_sweep;
mod environment_wire_faults;
mod environment_world;
mod holdings;
mod interrupted;
mod killed;
mod oracle;
mod points;
mod provider_faults;
mod silent_proofs;
mod sink_faults;
mod smoke;
mod system_rig;
mod wide_inputs;
