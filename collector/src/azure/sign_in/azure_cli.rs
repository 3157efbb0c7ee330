//! Sign-in as whoever is logged in to the Azure CLI.
//!
//! Reference: <https://learn.microsoft.com/cli/azure/account#az-account-get-access-token>. The SDK's client goes through
//! a shell and waits without end.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use azure_core::credentials::Secret as TokenSecret;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::{Failure, Fresh};
use crate::http::bounded;

/// It may have to ask Entra ID for a token, and starts slowly.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of what it says, in bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// What it says when the network fails.
const NETWORK: [&str; 5] = [
    "Max retries exceeded",
    "Connection aborted",
    "Connection reset",
    "timed out",
    "Temporary failure in name resolution",
];

/// The tool.
#[derive(Debug)]
pub(super) struct AzureCli {
    program: PathBuf,
    tenant: Option<String>,
    patience: Duration,
}

impl AzureCli {
    pub(super) fn new(tenant: Option<String>) -> Self {
        Self { program: "az".into(), tenant, patience: PATIENCE }
    }

    #[cfg(test)]
    pub(super) fn at(program: PathBuf, tenant: Option<String>, patience: Duration) -> Self {
        Self { program, tenant, patience }
    }

    pub(super) async fn token(&self, scope: &str) -> Result<Fresh, Failure> {
        let said = tokio::time::timeout(self.patience, self.run(scope)).await.unwrap_or_else(|_| {
            let why = format!("`az` did not answer in {:?}", self.patience);
            Err(Failure::Transient(self.reason(&why)))
        })?;
        let given: Given = serde_json::from_slice(&said).map_err(|_| {
            let why = "what `az` says holds no token; is it the Azure CLI, version 2.54 or newer?";
            Failure::Final(self.reason(why))
        })?;
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(given.expires_on);
        let lifetime = end.duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Fresh { secret: given.access_token, lifetime })
    }

    /// What it says on standard output.
    async fn run(&self, scope: &str) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["account", "get-access-token", "--output", "json", "--scope", scope]);
        if let Some(tenant) = &self.tenant {
            command.args(["--tenant", tenant]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let cannot_run = |error: std::io::Error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "`az` is not installed here: install the Azure CLI, or choose another `credential`".to_owned()
                }
                _ => format!("`az` cannot be run: {error}"),
            };
            Failure::Final(self.reason(&why))
        };
        let mut child = command.spawn().map_err(cannot_run)?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let (output, errors) = tokio::join!(all_of(output), all_of(errors));
        let status = child.wait().await.map_err(cannot_run)?;
        if status.success() {
            return Ok(output);
        }
        let errors = String::from_utf8_lossy(&errors);
        let said = bounded(errors.trim().trim_start_matches("ERROR:"), 500);
        if NETWORK.iter().any(|sign| errors.contains(sign)) {
            return Err(Failure::Transient(self.reason(&format!("`az`: {said}"))));
        }
        let why =
            format!("`az` ended with {status}: {said} (log in by `az login` where the collector runs, as its user)");
        Err(Failure::Final(self.reason(&why)))
    }

    pub(super) fn reason(&self, why: &str) -> String {
        let tenant = self.tenant.as_ref().map(|tenant| format!(" to tenant {tenant}")).unwrap_or_default();
        format!("cannot sign in{tenant} by the Azure CLI: {why}")
    }
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was said before it broke off may tell why.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    bytes
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "accessToken")]
    access_token: TokenSecret,
    /// In seconds since 1970.
    expires_on: u64,
}
