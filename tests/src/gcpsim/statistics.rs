//! What the server was asked for, and what it answered.

/// Counts since the start. Requests are counted when they arrive; the rest when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests to the token endpoint, refused ones among them.
    pub token_requests: u64,
    /// Requests to the metadata server.
    pub metadata_requests: u64,
    /// Requests for a token of another account.
    pub impersonation_requests: u64,
    /// Tokens handed out, by whichever way.
    pub tokens_issued: u64,
    /// API requests that came with a JWT which the client had signed itself.
    pub self_signed_requests: u64,
    /// Requests for a page of the list of projects, in either version.
    pub project_list_requests: u64,
    /// Requests for a page of a project's zones.
    pub zone_list_requests: u64,
    /// Requests for a page of a zone's instances.
    pub instance_list_requests: u64,
    /// Requests for a page of the instances of all zones.
    pub aggregated_list_requests: u64,
    /// Requests for a page of a project's firewalls.
    pub firewall_list_requests: u64,
    /// Requests for anything else.
    pub other_requests: u64,
    /// Pages answered in full.
    pub pages_served: u64,
    /// Answers 401.
    pub unauthorized: u64,
    /// Answers 403, other than for too many requests.
    pub forbidden: u64,
    /// Answers that there were too many requests, 403 and 429.
    pub throttled: u64,
    /// Answers 500, 502 and 503.
    pub failed: u64,
    /// Page tokens refused, bad ones and good ones.
    pub page_tokens_refused: u64,
    /// Bodies cut off in mid-answer.
    pub cut_off: u64,
}

impl Statistics {
    /// All requests to the services that hold the estate, whatever was answered.
    pub fn api_requests(&self) -> u64 {
        self.project_list_requests
            + self.zone_list_requests
            + self.instance_list_requests
            + self.aggregated_list_requests
            + self.firewall_list_requests
    }
}
