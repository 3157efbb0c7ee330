//! The mails of one run, sent beside it: what the mail server does neither stops nor delays an audit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alerter::mail::Letter;
use jiff::Timestamp;
use proto::run::MailState;
use proto::subject::Key;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Leader, RunError};
use crate::mail::{About, Occasion, send};
use crate::summary::AuditReport;

/// Sends the mails of a run, one after another. Dropped, it sends no more.
#[derive(Debug)]
pub(super) struct Post {
    leader: Arc<Leader>,
    queue: Arc<Queue>,
    worker: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    /// Nothing more is sent.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The first one is being sent.
    occasions: VecDeque<Occasion>,
    is_last: bool,
    /// What could not be sent: about which audit, and why.
    failures: Vec<(Option<Key>, String)>,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Post {
    /// Begins with the mail about the beginning of all.
    pub(super) fn begin(leader: &Arc<Leader>) -> Self {
        let queue = Arc::new(Queue::default());
        let worker = Worker { leader: Arc::clone(leader), queue: Arc::clone(&queue), is_away: false };
        let post = Self { leader: Arc::clone(leader), queue, worker: tokio::spawn(worker.run()) };
        post.add(Occasion::RunBegun);
        post
    }

    pub(super) fn audit_begins(&self, audit: &Key) {
        self.add(Occasion::AuditBegun(audit.clone()));
    }

    pub(super) async fn audit_ended(&self, report: &AuditReport) {
        let ended = self.leader.state_of(&report.audit).await.ended;
        let ended = ended.and_then(|at| at.parse().ok()).unwrap_or_else(Timestamp::now);
        self.add(Occasion::AuditEnded(Box::new(report.clone()), ended));
    }

    /// Sends the last one, and waits until all are sent, for as long as the mail server may be away. What could not be
    /// sent is noted in the reports.
    pub(super) async fn end(&self, reports: &mut [AuditReport]) {
        self.add(Occasion::RunEnded(reports.to_vec(), Timestamp::now()));
        self.queue.lock().is_last = true;
        self.queue.changed.notify_one();
        let patience = self.leader.options.mails.patience();
        let is_late = tokio::time::timeout(patience, self.queue.ended.notified()).await.is_err();
        let waiting = std::mem::take(&mut *self.queue.lock());
        let late = waiting.occasions.into_iter().filter(|_| is_late).map(|occasion| {
            let reason = format!("not sent within {} s after the end", patience.as_secs());
            (occasion.audit().cloned(), format!("{}: {reason}", occasion.name()))
        });
        for (audit, failure) in waiting.failures.into_iter().chain(late) {
            let of = |report: &AuditReport| audit.as_ref().is_none_or(|audit| *audit == report.audit);
            if let Some(report) = reports.iter_mut().find(|report| of(report)) {
                report.mails.push(failure);
            }
        }
    }

    fn add(&self, occasion: Occasion) {
        if self.leader.options.mails.mailer().is_some() {
            self.queue.lock().occasions.push_back(occasion);
            self.queue.changed.notify_one();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next occasion; it stays at the front. `None` behind the last one.
    async fn next(&self) -> Option<Occasion> {
        loop {
            {
                let waiting = self.lock();
                if let Some(occasion) = waiting.occasions.front() {
                    return Some(occasion.clone());
                }
                if waiting.is_last {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

struct Worker {
    leader: Arc<Leader>,
    queue: Arc<Queue>,
    /// The server was away for too long: each further mail is tried once.
    is_away: bool,
}

impl Worker {
    async fn run(mut self) {
        self.send_all().await;
        self.queue.ended.notify_one();
    }

    async fn send_all(&mut self) {
        while let Some(occasion) = self.queue.next().await {
            if let Err(error) = self.tell(&occasion).await {
                // Another coordinator leads the run, and sends what is left.
                tracing::warn!(%error, "this coordinator sends no more mails about the run");
                return;
            }
            self.queue.lock().occasions.pop_front();
        }
    }

    /// Sends a mail unless it was sent. Its state is written down before and after: a leader that is none any more
    /// sends nothing, and after a crash in between the mail is sent again, with the same `Message-ID`.
    async fn tell(&mut self, occasion: &Occasion) -> Result<(), RunError> {
        let key = occasion.key();
        if self.leader.mail_state(&key).await == Some(MailState::Sent) {
            return Ok(());
        }
        self.leader.note_mail(&key, MailState::Sending).await?;
        match self.send(occasion).await {
            Ok(()) => self.leader.note_mail(&key, MailState::Sent).await,
            Err(reason) => {
                let failure = format!("{}: {reason}", occasion.name());
                tracing::error!(version = %self.leader.version, failure, "a mail could not be sent");
                self.queue.lock().failures.push((occasion.audit().cloned(), failure));
                Ok(())
            }
        }
    }

    async fn send(&mut self, occasion: &Occasion) -> Result<(), String> {
        let mails = self.leader.options.mails;
        let Some(mailer) = mails.mailer() else { return Ok(()) };
        let mailer = mailer?;
        let about = About {
            version: self.leader.version.clone(),
            started: self.leader.started_text().await,
            plans: self.leader.plans.clone(),
        };
        let letter = Letter::new(mailer, about.write(mailer, occasion)?);
        let until = if self.is_away { Instant::now() } else { Instant::now() + mails.patience() };
        let sent = send(letter, until).await;
        self.is_away = sent.is_err();
        sent
    }
}
