//! The facts of damoov/API.md and every fault, over real sockets. [`client`] is what calls.

mod calls;
mod client;
mod faults;
mod journal;
mod logins;
mod management;
mod refreshes;
mod registrations;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::principal::{DeviceToken, InstanceId, Principal};
use client::{Answered, Client};

const USER: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
const OTHER: &str = "7f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b22";

fn user(text: &str) -> Principal {
    Principal::User(DeviceToken::parse(text).unwrap())
}

fn unlimited() -> Settings {
    Settings {
        login_limit: None,
        ..Settings::default()
    }
}

async fn start(settings: Settings) -> (Simulator, Client) {
    let simulator = Simulator::start(settings).await.unwrap();
    let client = Client::of(simulator.addr());
    (simulator, client)
}
