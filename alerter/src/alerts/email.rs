//! `EmailAlert`: one mail about all that an audit's version has found.

use std::sync::Arc;

use async_trait::async_trait;
use proto::catalogue::{PluginClass, in_one_line};
use proto::plan::Stage;
use proto::subject::Role;
use serde_json::Value;

use crate::alert::{Alert, AlertError};
use crate::digest::Digest;
use crate::listing::{Form, Listing};
use crate::mail::{self, Attachment, Draft, Letter, MailError, Mailer};
use crate::page::Page;
use crate::readable::{counted, grouped};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.alerts.emailalert.EmailAlert",
    roles: &[Role::Alert],
    stage: Stage::Alerter,
    exclusive: true,
    pool: None,
    check: Some(&mail::check),
};

/// The largest file that goes with a mail, in bytes. Many servers take no mail above 10 MiB, and there are two files.
const LARGEST_FILE: usize = 3 * 1024 * 1024;

/// Builds the alert of its parameters.
///
/// # Errors
/// What is wrong with them, for people.
pub fn build(params: &Value) -> Result<Box<dyn Alert>, String> {
    let mailer = Mailer::new(params).map_err(|errors| in_one_line(&errors))?;
    Ok(Box::new(EmailAlert { mailer, letter: None }))
}

struct EmailAlert {
    mailer: Mailer,
    letter: Option<Letter>,
}

#[async_trait]
impl Alert for EmailAlert {
    async fn deliver(&mut self, digest: &Arc<Digest>) -> Result<(), AlertError> {
        let letter = match &mut self.letter {
            Some(letter) => letter,
            empty => {
                let (mailer, digest) = (self.mailer.clone(), Arc::clone(digest));
                let written = tokio::task::spawn_blocking(move || write(&mailer, &digest)).await;
                let written = written.map_err(|error| AlertError::Permanent(error.to_string()))?;
                empty.insert(Letter::new(&self.mailer, written.map_err(AlertError::Permanent)?))
            }
        };
        letter.send().await.map_err(|error| match error {
            MailError::Permanent(reason) => AlertError::Permanent(reason),
            MailError::Transient(reason) => AlertError::transient(reason),
        })
    }

    fn told(&self) -> u64 {
        self.letter.as_ref().map_or(0, Letter::told)
    }

    fn place(&self) -> String {
        self.mailer.place()
    }
}

/// The mail. Files go with it when not all findings are in its text.
fn write(mailer: &Mailer, digest: &Digest) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read the temporary file of the findings: {error}");
    let mut page = Page::of(digest).map_err(unreadable)?;
    let mut attachments = Vec::new();
    if !page.is_whole() {
        for form in [Form::Csv, Form::Json] {
            let listing = Listing::of(digest, form, LARGEST_FILE).map_err(unreadable)?;
            page.attached.push(if listing.findings == digest.len() {
                format!("{} (all {})", listing.name, counted(listing.findings, "finding", "findings"))
            } else {
                format!(
                    "{} (the first {} of {}; for all of them, name a store under `alerts:`)",
                    listing.name,
                    grouped(listing.findings),
                    counted(digest.len(), "finding", "findings")
                )
            });
            let Listing { name, media_type, content, .. } = listing;
            attachments.push(Attachment { name, media_type, content });
        }
    }
    let defect = |error: minijinja::Error| format!("cannot write the page: {error}");
    mailer.write(Draft {
        subject: mailer.subject(&digest.headline()),
        message_id: mailer.message_id(&digest.about.idempotency_key("mail")),
        text: page.text().map_err(defect)?,
        html: Some(page.html().map_err(defect)?),
        attachments,
    })
}
