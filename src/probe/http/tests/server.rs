//! A server that does what it is told to, byte by byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One thing that a server does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Reads to the end of a request's head.
    Hear,
    /// Reads so many bytes.
    HearBytes(usize),
    /// Writes.
    Say(Vec<u8>),
    /// Writes one byte every 20 ms.
    Trickle(&'static [u8]),
    /// Writes the same again and again until nobody takes it.
    Endless(Vec<u8>),
    /// Does nothing until the other side goes away.
    Hold,
    /// Resets the connection.
    Reset,
}

/// Hears a request and says this.
pub(super) fn say(answer: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Act::Hear, Act::Say(answer.into())]
}

/// A server on a port of its own; it is gone when this is.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// The heads that it heard.
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Plays one script for each connection, in turn; the last one is played for all that follow.
    pub(super) async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut turn = 0;
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let script = scripts[turn.min(scripts.len() - 1)].clone();
                tokio::spawn(play(stream, script, Arc::clone(&ears)));
                turn += 1;
            }
        });
        Self { address, heard, task }
    }

    /// The heads that it heard, in lower case.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(mut stream: TcpStream, script: Vec<Act>, ears: Arc<Mutex<Vec<String>>>) {
    for act in script {
        let done = match act {
            Act::Hear => match hear(&mut stream).await {
                Ok(head) => {
                    ears.lock().unwrap().push(head);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Act::HearBytes(bytes) => stream.read_exact(&mut vec![0; bytes]).await.map(|_| ()),
            Act::Say(bytes) => stream.write_all(&bytes).await,
            Act::Trickle(bytes) => trickle(&mut stream, bytes).await,
            Act::Endless(bytes) => loop {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            },
            Act::Hold => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
                return;
            }
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
        };
        if done.is_err() {
            return;
        }
    }
    // What was not read would make the close a reset.
    stream.shutdown().await.unwrap_or_default();
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn hear(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}

async fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_u8(*byte).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
