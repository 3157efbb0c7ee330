//! The harness itself: servers come back with their data, programs are watched and killed as promised.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use tests::harness::{NatsServer, Program};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Result<Program> {
    Program::at("sh").args(["-c", script]).start()
}

async fn connect(server: &NatsServer) -> Result<jetstream::Context> {
    // async-nats finds no TLS provider by itself. Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(jetstream::new(async_nats::connect(server.url()).await?))
}

#[tokio::test]
async fn an_acknowledged_message_survives_a_killed_server() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let url = server.url().to_owned();
    let stream = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        storage: jetstream::stream::StorageType::File,
        ..Default::default()
    };
    let before = connect(&server).await?;
    before.create_stream(stream).await?;
    before.publish("kept", "still there".into()).await?.await?;

    server.restart().await?;

    assert_eq!(server.url(), url);
    let kept = connect(&server).await?.get_stream("KEPT").await?;
    let message = kept.get_raw_message(1).await?;
    assert_eq!(&message.payload[..], b"still there");
    // A client of before finds the server again, as it is on the same port.
    let published = before.publish("kept", "another".into()).await?.await?;
    assert_eq!(published.sequence, 2);
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_killed_or_stopped_is_gone_until_restarted() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let address = server.url().trim_start_matches("nats://").to_owned();

    server.kill9().await?;
    assert!(std::net::TcpStream::connect(&address).is_err());
    assert!(server.kill9().await.is_err(), "killing twice has to be noticed");
    server.restart().await?;
    assert!(std::net::TcpStream::connect(&address).is_ok());

    server.stop().await?;
    assert!(server.log().contains("Server Exiting"), "{}", server.log());
    server.restart().await?;
    connect(&server).await?;

    drop(server);
    let gone = async {
        while std::net::TcpStream::connect(&address).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.context("dropping has to kill the server")
}

#[tokio::test]
async fn servers_run_side_by_side() -> Result<()> {
    let (one, two) = tokio::try_join!(NatsServer::start(), NatsServer::start())?;
    assert_ne!(one.url(), two.url());
    assert_ne!(one.monitoring_url(), two.monitoring_url());
    let of_one = connect(&one).await?;
    of_one.create_stream(jetstream::stream::Config { name: "ONE".into(), ..Default::default() }).await?;
    assert!(connect(&two).await?.get_stream("ONE").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_program_sees_only_what_it_is_given() -> Result<()> {
    let mut program = Program::at("env").env("CM_GIVEN", "yes").start()?;
    let output = program.wait(PATIENCE).await?.with_code(0)?;
    let mut names: Vec<_> = output.stdout.lines().filter_map(|line| line.split_once('=')).collect();
    names.sort_unstable();
    let path = std::env::var("PATH")?;
    let home = program.home().to_str().context("a temporary folder")?;
    assert_eq!(names, [("CM_GIVEN", "yes"), ("HOME", home), ("PATH", &path)]);
    Ok(())
}

#[tokio::test]
async fn a_line_is_waited_for_on_both_streams_and_comes_whole() -> Result<()> {
    let program = shell("printf 'listening on '; sleep 0.1; echo port 7; echo failing over >&2; sleep 60")?;
    assert_eq!(program.wait_for_line("listening on", PATIENCE).await?, "listening on port 7");
    assert_eq!(program.wait_for_line("failing", PATIENCE).await?, "failing over");
    // What has been printed is found again.
    assert_eq!(program.wait_for_line("port", PATIENCE).await?, "listening on port 7");

    let late = program.wait_for_line("never", Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(late.contains("within 50ms") && late.contains("failing over") && late.contains("port 7"), "{late}");
    Ok(())
}

#[tokio::test]
async fn a_program_that_ends_early_is_noticed_at_once_with_its_output() -> Result<()> {
    let mut program = shell("echo 'no such plugin' >&2; printf unfinished; exit 3")?;
    let error = program.wait_for_line("ready", PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("ended without") && error.contains("no such plugin"), "{error}");
    assert_eq!(program.wait_for_line("unfinished", PATIENCE).await?, "unfinished");

    let output = program.wait(PATIENCE).await?;
    assert_eq!((output.code(), output.stdout.as_str()), (Some(3), "unfinished"));
    let error = output.with_code(0).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such plugin"), "{error}");
    Ok(())
}

#[tokio::test]
async fn signals_reach_the_program() -> Result<()> {
    let script = |signal| format!("trap 'echo got {signal}; exit 5' {signal}; echo set; while :; do sleep 0.01; done");

    let mut program = shell(&script("TERM"))?;
    program.wait_for_line("set", PATIENCE).await?;
    program.terminate()?;
    let output = program.wait(PATIENCE).await?.with_code(5)?;
    assert_eq!(output.stdout, "set\ngot TERM\n");
    assert!(program.terminate().is_err(), "a program that has ended cannot be terminated");

    let mut program = shell(&script("INT"))?;
    program.wait_for_line("set", PATIENCE).await?;
    program.interrupt()?;
    program.wait_for_line("got INT", PATIENCE).await?;

    let mut program = shell("echo set; exec sleep 60")?;
    program.wait_for_line("set", PATIENCE).await?;
    let error = program.wait(Duration::from_millis(20)).await.unwrap_err().to_string();
    assert!(error.contains("did not end within 20ms"), "{error}");
    program.kill9().await?;
    assert_eq!(program.wait(PATIENCE).await?.code(), None);
    Ok(())
}

#[tokio::test]
async fn a_missing_program_says_what_to_build() {
    let error = Program::named("no-such-stage").start().unwrap_err().to_string();
    assert!(error.contains("cargo build --workspace --bins"), "{error}");
}
