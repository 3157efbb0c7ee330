//! `EmailAlert`: one mail about all that an audit's version has found.

use std::sync::Arc;

use async_trait::async_trait;
use lettre::message::Mailbox;
use proto::catalogue::{PluginClass, in_one_line};
use proto::plan::Stage;
use proto::subject::Role;
use serde_json::Value;

use crate::alert::{Alert, AlertError};
use crate::digest::Digest;
use crate::listing::{Form, Listing};
use crate::mail::{self, Attachment, Draft, MailError, Mailer};
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
    let waiting = mailer.to().to_vec();
    Ok(Box::new(EmailAlert { mailer, waiting, refused: Vec::new(), message: None }))
}

struct EmailAlert {
    mailer: Mailer,
    /// Who has it not yet.
    waiting: Vec<Mailbox>,
    /// Who will not have it, and why.
    refused: Vec<String>,
    message: Option<Vec<u8>>,
}

#[async_trait]
impl Alert for EmailAlert {
    async fn deliver(&mut self, digest: &Arc<Digest>) -> Result<(), AlertError> {
        if self.message.is_none() {
            let (mailer, digest) = (self.mailer.clone(), Arc::clone(digest));
            let written = tokio::task::spawn_blocking(move || write(&mailer, &digest)).await;
            let written = written.map_err(|error| AlertError::Permanent(error.to_string()))?;
            self.message = Some(written.map_err(AlertError::Permanent)?);
        }
        let message = self.message.as_deref().unwrap_or_default();
        let sent = self.mailer.send(&self.waiting, message).await.map_err(|error| match error {
            MailError::Permanent(reason) => AlertError::Permanent(self.so_far(reason)),
            MailError::Transient(reason) => AlertError::transient(self.so_far(reason)),
        })?;
        self.waiting.retain(|waiting| !sent.taken.contains(waiting));
        let mut later = Vec::new();
        for refusal in sent.refused {
            let said = format!("{}: {}", refusal.to.email, refusal.reason);
            tracing::warn!(receiver = %refusal.to.email, reason = refusal.reason, "a receiver of a mail is refused");
            if refusal.is_permanent {
                self.waiting.retain(|waiting| *waiting != refusal.to);
                self.refused.push(said);
            } else {
                later.push(said);
            }
        }
        if !later.is_empty() {
            return Err(AlertError::transient(self.so_far(format!("not taken now: {}", later.join("; ")))));
        }
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(AlertError::Permanent(self.so_far("not all receivers are taken".to_owned())))
    }

    fn told(&self) -> u64 {
        (self.mailer.to().len() - self.waiting.len() - self.refused.len()) as u64
    }

    fn place(&self) -> String {
        let to: Vec<&str> = self.mailer.to().iter().map(|to| to.email.as_ref()).collect();
        format!("mail to {} by {}", to.join(", "), self.mailer.server())
    }
}

impl EmailAlert {
    /// A failure with who has the mail all the same, and who never will.
    fn so_far(&self, reason: String) -> String {
        let mut text = reason;
        if !self.refused.is_empty() {
            text = format!("{text}; {} refuses {}", self.mailer.server(), self.refused.join("; "));
        }
        if self.told() > 0 {
            let all = self.mailer.to().len() as u64;
            text =
                format!("{text}; {} of {} have the mail", grouped(self.told()), counted(all, "receiver", "receivers"));
        }
        text
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
