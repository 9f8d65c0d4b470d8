//! What only our own program does: flags, configuration file, metrics, limits, exit codes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Output},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    echo_rig::{LIMIT, echo_server},
    private_servers::free_address,
    proxy_program::{Program, address_of, listens, nowhere},
    wait::wait_until,
};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toxid")).args(arguments).output().expect("run toxid")
}

#[tokio::test]
async fn the_configuration_file_creates_its_proxies_before_the_address_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("proxies.json");
    let proxies =
        json!([nowhere("one", "127.0.0.1:0"), { "name": "two", "upstream": "localhost:9", "enabled": false }]);
    std::fs::write(&file, proxies.to_string()).expect("write");
    let program =
        Program::start_ours(&["-config", file.to_str().expect("path"), "-port=0", "-host", "127.0.0.1"]).await;
    let shown = program.get("/proxies").await.json;
    assert!(listens(address_of(&shown["one"])));
    assert_eq!(shown["two"]["enabled"], false);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_exit_2_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("folder");
    for (text, reason) in [
        ("[{]", "bad request body"),
        (r#"[{"name": "one"}]"#, "missing required field: upstream at proxy 1"),
        (r#"[{"name": "one", "upstream": "a:1", "listen": "nonsense"}]"#, "missing port in address"),
    ] {
        let file = folder.path().join("proxies.json");
        std::fs::write(&file, text).expect("write");
        let output = run(&["--listen", "127.0.0.1:0", "--config", file.to_str().expect("path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason) && said.contains("proxies.json"), "{said}");
    }
    let output = run(&["--listen", "127.0.0.1:0", "--config", "/nonexistent/proxies.json"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn unknown_flags_are_exit_2_and_a_taken_port_is_exit_6() {
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&["--listen", "127.0.0.1:0", "--port", "1"]).status.code(), Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let output = run(&["--listen", &address]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[tokio::test]
async fn sigterm_ends_it_in_order_with_its_proxies() {
    let program = Program::start_ours(&["--listen", "127.0.0.1:0"]).await;
    let proxy = program.with_proxy("db").await;
    let pid = Pid::from_raw(i32::try_from(program.pid()).expect("pid")).expect("pid");
    kill_process(pid, Signal::TERM).expect("signal");
    assert_eq!(program.exit_code().await, Some(0));
    assert!(!listens(proxy));
}

#[tokio::test]
async fn metrics_are_absent_unless_asked_for() {
    let program = Program::start_ours(&["--listen", "127.0.0.1:0"]).await;
    let answer = program.get("/metrics").await;
    assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn metrics_count_the_bytes_of_ended_links_per_direction() {
    let program = Program::start_ours(&["--listen", "127.0.0.1:0", "-proxy-metrics", "-runtime-metrics"]).await;
    let upstream = echo_server().await;
    let made = program
        .post("/proxies", json!({ "name": "echo", "listen": "127.0.0.1:0", "upstream": upstream.to_string() }))
        .await;
    let listen = address_of(&made.json);
    let text = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(listen).expect("connect");
        socket.write_all(&[7; 1_234]).expect("send");
        socket.shutdown(std::net::Shutdown::Write).expect("half-close");
        let mut back = Vec::new();
        socket.read_to_end(&mut back).expect("receive");
        back.len()
    })
    .await
    .expect("client");
    assert_eq!(text, 1_234);
    for (name, direction) in
        [("received", "upstream"), ("sent", "upstream"), ("received", "downstream"), ("sent", "downstream")]
    {
        let line = format!(
            "toxiproxy_proxy_{name}_bytes_total{{direction=\"{direction}\",listener=\"{listen}\",proxy=\"echo\",upstream=\"{upstream}\"}} 1234\n"
        );
        wait_until("the link has ended and counts", LIMIT, || async {
            program.get("/metrics").await.text.contains(&line).then_some(())
        })
        .await;
    }
    assert!(program.get("/metrics").await.text.contains("\nprocess_open_fds "));
}

#[tokio::test]
async fn a_request_that_does_not_come_to_its_end_is_answered_503_in_time() {
    let program = Program::start_ours(&["--listen", "127.0.0.1:0", "--handler-ms-max", "200"]).await;
    let api = program.api;
    let start = Instant::now();
    let answer = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(api).expect("connect");
        socket.set_read_timeout(Some(LIMIT)).expect("limit");
        socket.write_all(b"POST /proxies HTTP/1.1\r\nHost: toxid\r\nContent-Length: 10\r\n\r\n{").expect("send");
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
    .expect("client");
    assert_eq!(answer, "HTTP/1.1 503");
    assert!(start.elapsed() >= Duration::from_millis(199), "{:?}", start.elapsed());
    assert_eq!(program.get("/proxies").await.status, 200, "it serves on");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_405_and_a_path_that_does_not_exist_404() {
    let program = Program::start_ours(&["--listen", "127.0.0.1:0"]).await;
    assert_eq!(program.delete("/proxies").await.status, 405);
    assert_eq!(program.get("/reset").await.status, 405);
    assert_eq!(program.get("/nothing/here").await.text, "404 page not found\n");
}

#[tokio::test]
async fn the_black_hole_is_known_only_where_it_is_asked_for() {
    let asked = json!({ "type": "blackhole" });
    let official = Program::start_ours(&["--listen", "127.0.0.1:0"]).await;
    official.with_proxy("db").await;
    official.post("/proxies/db/toxics", asked.clone()).await.refuses(400, "invalid toxic type");
    let extended = Program::start_ours(&["--listen", "127.0.0.1:0", "--blackhole"]).await;
    extended.with_proxy("db").await;
    assert_eq!(extended.toxic("db", asked).await["name"], "blackhole_downstream");
}

#[tokio::test]
async fn without_flags_the_port_is_the_official_one() {
    // Asked of the help text: a test must not take the port that a person's own server may have.
    let help = String::from_utf8(run(&["--help"]).stdout).expect("text");
    assert!(help.contains("8474") && help.contains("localhost"), "{help}");
    assert_ne!(free_address().port(), 8474);
}
