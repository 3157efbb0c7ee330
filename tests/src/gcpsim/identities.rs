//! Who may sign in, and with what.

use serde_json::{Value, json};

use crate::cloudsim::random::Random;

use super::signing_key::SigningKey;

/// The project that the accounts belong to. It is none of the estate's, as an auditor's project often
/// cannot be seen by the audit itself.
pub(super) const HOME: &str = "audit-home";

/// The number of that project.
pub(super) const HOME_NUMBER: &str = "990000000001";

/// The accounts of a simulated cloud. All may read everything, until the faults say otherwise.
pub(super) struct Identities {
    /// The account that has a key file.
    pub(super) service_account: String,
    pub(super) key: SigningKey,
    /// A key that the account does not have.
    pub(super) wrong_key: SigningKey,
    /// The account of the machine that the metadata server serves.
    pub(super) machine_account: String,
    /// The person whom a refresh token stands for.
    pub(super) user: User,
    /// The accounts whose tokens the others may make.
    pub(super) impersonable: Vec<String>,
}

/// A person who has signed in with `gcloud`.
pub(super) struct User {
    pub(super) email: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) refresh_token: String,
}

impl Identities {
    pub(super) fn new(seed: u64, key: SigningKey, wrong_key: SigningKey) -> Self {
        let mut random = Random::at(seed, &[0x1d]);
        let mut word = || format!("{:016x}{:016x}", random.next(), random.next());
        Self {
            service_account: account("auditor"),
            key,
            wrong_key,
            machine_account: format!("{HOME_NUMBER}-compute@developer.gserviceaccount.com"),
            user: User {
                email: "ana@example.com".to_owned(),
                client_id: format!("{HOME_NUMBER}-{}.apps.googleusercontent.com", word()),
                client_secret: format!("GOCSPX-{}", word()),
                refresh_token: format!("1//0{}", word()),
            },
            impersonable: vec![account("reader"), account("delegate")],
        }
    }

    /// The key file of the service account, signing with `key`.
    pub(super) fn key_file(&self, url: &str, key: &SigningKey) -> Value {
        let email = &self.service_account;
        json!({
            "type": "service_account",
            "project_id": HOME,
            "private_key_id": key.id(),
            "private_key": key.pem(),
            "client_email": email,
            "client_id": "104857600000000000001",
            "auth_uri": format!("{url}/o/oauth2/auth"),
            "token_uri": format!("{url}/token"),
            "auth_provider_x509_cert_url": format!("{url}/oauth2/v1/certs"),
            "client_x509_cert_url": format!("{url}/robot/v1/metadata/x509/{}", email.replace('@', "%40")),
            "universe_domain": "googleapis.com",
        })
    }

    /// What `gcloud auth application-default login` leaves behind.
    pub(super) fn user_file(&self, url: &str) -> Value {
        json!({
            "type": "authorized_user",
            "account": "",
            "client_id": self.user.client_id,
            "client_secret": self.user.client_secret,
            "refresh_token": self.user.refresh_token,
            "quota_project_id": HOME,
            "token_uri": format!("{url}/token"),
            "universe_domain": "googleapis.com",
        })
    }
}

fn account(name: &str) -> String {
    format!("{name}@{HOME}.iam.gserviceaccount.com")
}
