//! The alerter: events in, messages to people out.

pub mod alert;
pub mod alerts;
pub mod digest;
pub mod event;
pub mod gather;
pub mod http;
pub mod listing;
pub mod mail;
pub mod news;
pub mod outcome;
pub mod page;
pub mod readable;
pub mod registry;
pub mod settings;
pub mod trial;
pub mod worker;
