//! What the server was asked for, and what it answered.

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
}

impl Statistics {
    /// All requests to Resource Manager, whatever was answered.
    pub fn arm_requests(&self) -> u64 {
        self.subscription_list_requests + self.subscription_requests + self.nsg_list_requests + self.other_requests
    }
}
