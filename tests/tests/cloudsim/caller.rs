//! A client of one simulated cloud.

use std::sync::OnceLock;

use reqwest::{Client, StatusCode};
use serde_json::Value;
use tests::cloudsim::{Builder, Cloudsim};
use url::{Url, form_urlencoded};

pub const SCOPE: &str = "https://management.azure.com/.default";

pub fn client() -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder().no_proxy().build().unwrap()
}

/// A client of one simulated cloud, as simple as can be: no retries.
pub struct Caller {
    pub http: Client,
    pub cloud: Cloudsim,
    pub token: String,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap()
    }

    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.json().await.unwrap();
        Self { status, headers, body }
    }
}

impl Caller {
    pub async fn start(builder: Builder) -> Self {
        let cloud = builder.start().await.unwrap();
        let mut caller = Self { http: client(), cloud, token: String::new() };
        caller.sign_in().await;
        caller
    }

    pub async fn sign_in(&mut self) {
        let cloud = &self.cloud;
        let answer = self.ask_token(cloud.tenant(), cloud.client_id(), cloud.client_secret(), SCOPE).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        self.token = answer.body["access_token"].as_str().unwrap().to_owned();
    }

    pub async fn ask_token(&self, tenant: &str, id: &str, secret: &str, scope: &str) -> Answer {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", id)
            .append_pair("client_secret", secret)
            .append_pair("scope", scope)
            .finish();
        let response = self
            .http
            .post(format!("{}/{tenant}/oauth2/v2.0/token", self.cloud.url()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        Answer::read(response).await
    }

    /// `target` is a path on this server, or a whole address.
    pub fn request(&self, target: &str) -> reqwest::RequestBuilder {
        let url = Url::parse(self.cloud.url()).unwrap().join(target).unwrap();
        self.http.get(url).bearer_auth(&self.token)
    }

    pub async fn get(&self, target: &str) -> Answer {
        Answer::read(self.request(target).send().await.unwrap()).await
    }

    pub fn nsgs_path(&self, subscription: usize) -> String {
        format!(
            "/subscriptions/{}/providers/Microsoft.Network/networkSecurityGroups?api-version=2024-05-01",
            self.cloud.estate().subscription_id(subscription)
        )
    }

    /// All items of a list, and the number of its pages.
    pub async fn list(&self, path: &str) -> (Vec<Value>, usize) {
        let (mut items, mut pages) = (Vec::new(), 0);
        let mut next = Some(path.to_owned());
        while let Some(target) = next {
            let answer = self.get(&target).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            items.extend(answer.body["value"].as_array().unwrap().iter().cloned());
            next = answer.body["nextLink"].as_str().map(str::to_owned);
            pages += 1;
        }
        (items, pages)
    }
}
