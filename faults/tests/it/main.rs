//! Each fault bites, heals and stays inside its radius; the proxy server does what its API says.

mod api_cases_proxies;
mod api_cases_toxics;
mod echo_rig;
mod official_server;
mod pool_exhaustion;
mod private_servers;
mod process_kill;
mod proxy_cases;
mod proxy_program;
mod redis_loss;
mod toxi_client;
mod toxic_effects;
mod toxic_measures;
mod toxid_api;
mod toxid_inspector;
mod toxid_program;
mod wait;
mod wire_http;
mod wire_postgres;
mod wire_redis;
mod wire_rig;
