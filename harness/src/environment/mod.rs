//! The world a run needs: servers, the system's processes, the links between them, and the sweep.

pub mod binaries;
pub mod clock_library;
pub mod docker;
pub mod docker_connection;
pub mod doctor;
pub mod engine;
pub mod engine_choice;
pub mod file_digest;
pub mod free_port;
pub mod host_server;
pub mod images;
pub mod links;
pub mod log_tail;
pub mod process;
pub mod process_tree;
pub mod registration;
pub mod replication;
pub mod servers;
pub mod service_control;
pub mod signing_key;
pub mod supervisor;
pub mod sweep;
pub mod system_binary;
pub mod system_process;
pub mod topology;
pub mod volume;
