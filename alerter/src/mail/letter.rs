//! A message on its way: who has it, who will not have it, and who may have it later.

use lettre::message::Mailbox;

use super::{MailError, Mailer};
use crate::readable::{counted, grouped};

/// A written message and whom it has not reached yet: another try tells nobody twice.
#[derive(Debug, Clone)]
pub struct Letter {
    mailer: Mailer,
    message: Vec<u8>,
    /// Who has it not yet.
    waiting: Vec<Mailbox>,
    /// Who will not have it, and why.
    refused: Vec<String>,
}

impl Letter {
    /// A message to all receivers, written by [`Mailer::write`].
    #[must_use]
    pub fn new(mailer: &Mailer, message: Vec<u8>) -> Self {
        Self { mailer: mailer.clone(), message, waiting: mailer.to().to_vec(), refused: Vec::new() }
    }

    /// How many have it.
    #[must_use]
    pub fn told(&self) -> u64 {
        (self.mailer.to().len() - self.waiting.len() - self.refused.len()) as u64
    }

    /// Sends it to all who have it not yet. Whom the server refuses costs no other.
    ///
    /// # Errors
    /// When not all have it: what the server said, and who has it all the same.
    pub async fn send(&mut self) -> Result<(), MailError> {
        let sent = self.mailer.send(&self.waiting, &self.message).await.map_err(|error| match error {
            MailError::Permanent(reason) => MailError::Permanent(self.so_far(reason)),
            MailError::Transient(reason) => MailError::Transient(self.so_far(reason)),
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
            return Err(MailError::Transient(self.so_far(format!("not taken now: {}", later.join("; ")))));
        }
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(MailError::Permanent(self.so_far("not all receivers are taken".to_owned())))
    }

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
