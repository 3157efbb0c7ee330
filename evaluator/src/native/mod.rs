//! What rules need and expressions cannot say well.

pub mod firewall;
pub mod networks;
pub mod ports;
pub mod time;
pub mod version;
