//! What passes between the proxy and the Auth endpoints, heard on the way.

use std::sync::{Arc, Mutex};

use damoov_proxy::simulator::Simulator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::loopback;

/// Listens in on what the Auth endpoints answer: only there do RefreshTokens pass by.
pub struct Tap {
    pub url: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub async fn before(damoov: &Simulator) -> Tap {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (address, recording) = (damoov.addr(), heard.clone());
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let recording = recording.clone();
                tokio::spawn(async move {
                    let damoov = TcpStream::connect(address).await.unwrap();
                    let (mut from_caller, mut to_caller) = caller.into_split();
                    let (mut from_damoov, mut to_damoov) = damoov.into_split();
                    let asking = tokio::io::copy(&mut from_caller, &mut to_damoov);
                    let answering = async {
                        let mut piece = vec![0; 64 * 1024];
                        while let Ok(length @ 1..) = from_damoov.read(&mut piece).await {
                            recording.lock().unwrap().extend(&piece[..length]);
                            if to_caller.write_all(&piece[..length]).await.is_err() {
                                break;
                            }
                        }
                    };
                    // Either end's leaving ends both.
                    tokio::select! {
                        _ = asking => {}
                        () = answering => {}
                    }
                });
            }
        });
        Tap { url, heard }
    }

    /// Every access and RefreshToken that was issued over the wire.
    pub fn tokens(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let text = String::from_utf8_lossy(&heard);
        let values = |name: &str| -> Vec<String> {
            text.split(&format!("\"{name}\":\""))
                .skip(1)
                .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
                .collect()
        };
        [values("Token"), values("RefreshToken")].concat()
    }
}
