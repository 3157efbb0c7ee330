//! What the server was asked for, and what it answered.

use super::kind::Kind;

/// Counts since the start. Requests are counted when they arrive; the rest when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests to the token endpoint, refused ones among them.
    pub token_requests: u64,
    /// Tokens handed out.
    pub tokens_issued: u64,
    /// Requests for the documents that a login library reads before it asks for a token.
    pub discovery_requests: u64,
    /// Requests for a page of the list of subscriptions.
    pub subscription_list_requests: u64,
    /// Requests for one subscription.
    pub subscription_requests: u64,
    /// Requests for a page of a subscription's network security groups.
    pub nsg_list_requests: u64,
    /// Requests for a page of any other list at Resource Manager.
    pub list_requests: u64,
    /// Requests for one resource, for a detail of one, or for a list below one.
    pub detail_requests: u64,
    /// Requests to the data plane of Key Vault, those without a token among them.
    pub vault_requests: u64,
    /// Requests for a token to the endpoints of managed identities.
    pub identity_requests: u64,
    /// Requests to Resource Manager for anything else.
    pub other_requests: u64,
    /// Pages answered in full.
    pub pages_served: u64,
    /// Answers 401: no token, an unknown one, an expired one, or one for another service.
    pub unauthorized: u64,
    /// Answers 403.
    pub forbidden: u64,
    /// Answers 429.
    pub throttled: u64,
    /// Answers 500 and 503.
    pub failed: u64,
    /// Page tokens refused, bad ones and good ones.
    pub page_tokens_refused: u64,
    /// Bodies cut off in mid-answer.
    pub cut_off: u64,
    by_kind: [u64; Kind::COUNT],
}

impl Statistics {
    /// All requests to Resource Manager, whatever was answered.
    pub fn arm_requests(&self) -> u64 {
        self.subscription_list_requests
            + self.subscription_requests
            + self.nsg_list_requests
            + self.list_requests
            + self.detail_requests
            + self.other_requests
    }

    /// Requests for lists of a kind, for one of it, or for the detail that it is; to Resource Manager and to
    /// the data plane of Key Vault.
    pub fn requests_of(&self, kind: Kind) -> u64 {
        self.by_kind.get(kind as usize).copied().unwrap_or_default()
    }

    pub(super) fn count_kind(&mut self, kind: Kind) {
        if let Some(count) = self.by_kind.get_mut(kind as usize) {
            *count += 1;
        }
    }
}
