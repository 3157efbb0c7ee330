//! When audits run: the turns of a schedule, whatever the clock does in between, and what is to be done about one.
//!
//! Nothing here looks at a clock or at the host's zone: both are given, so that a year passes in a test at once.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use proto::config::{Config, Overlap, ScheduleConfig, Timing};
use proto::identity::Id;
use proto::subject::Key;

/// How long before a coordinator's start a turn may have been that it still takes for its own: so long may a restart
/// or the death of the one before it last.
pub const GRACE: Duration = Duration::from_secs(60);
/// How many missed turns are counted one by one.
const MOST_COUNTED: u64 = 1_000;

/// Audits that have their turns together: they run in one version.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What tells it from others, on all hosts: legal in keys of buckets.
    pub id: String,
    /// Its audits, in the order of `run:`.
    pub audits: Vec<Key>,
    /// What becomes of a turn at which an audit still runs.
    pub overlap: Overlap,
    /// Whether a turn that was missed is made up for at the start.
    pub catch_up: bool,
    timing: Timing,
    zone: TimeZone,
}

/// What is to be done about a schedule now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: all turns so far have been served.
    Nothing,
    /// The turn has come, or is made up for: the audits run.
    Due {
        /// The turn.
        turn: Timestamp,
        /// How many turns before it were missed.
        missed: u64,
    },
    /// The turn was missed, and is not made up for.
    Missed {
        /// The last turn that was missed.
        turn: Timestamp,
        /// How many were.
        missed: u64,
    },
}

/// Which of two showings of a local time is meant, where clocks go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Showing {
    First,
    Second,
}

impl Schedule {
    /// A schedule of some audits.
    ///
    /// # Errors
    /// When this host does not know the zone.
    pub fn new(config: &ScheduleConfig, audits: Vec<Key>) -> Result<Self, String> {
        let zone = config.zone()?;
        let words = format!("{}|{}|{}|{}", config.timing, name_of(&zone), config.catch_up, config.overlap.as_str());
        Ok(Self {
            id: Id::digest(words.as_bytes()).to_string(),
            audits,
            overlap: config.overlap,
            catch_up: config.catch_up,
            timing: config.timing.clone(),
            zone,
        })
    }

    /// The schedules of the audits that run, each with those audits that share it.
    ///
    /// # Errors
    /// When this host does not know a zone.
    pub fn of_config(config: &Config) -> Result<Vec<Self>, String> {
        let mut schedules: Vec<Self> = Vec::new();
        for key in &config.run {
            let Some(audit) = config.audits.get(key) else { continue };
            let schedule = Self::new(&audit.schedule, vec![key.clone()])?;
            // One that names the host's zone and one that names none are the same: each turn is served once.
            match schedules.iter_mut().find(|known| known.id == schedule.id) {
                Some(known) => known.audits.push(key.clone()),
                None => schedules.push(schedule),
            }
        }
        Ok(schedules)
    }

    /// The schedule as it may be written.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The zone's name.
    #[must_use]
    pub fn zone_name(&self) -> &str {
        name_of(&self.zone)
    }

    /// A moment as the clocks of the schedule's zone show it.
    #[must_use]
    pub fn local(&self, moment: Timestamp) -> jiff::Zoned {
        moment.to_zoned(self.zone.clone())
    }

    /// A moment as the clocks of the schedule's zone show it, for people.
    #[must_use]
    pub fn shown(&self, moment: Timestamp) -> String {
        self.local(moment).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// The audits, for people.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<String> = self.audits.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// The first turn after a moment.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        if let Timing::Every(interval) = self.timing {
            return interval_turn(after, interval, 1);
        }
        let turns = self.showings().iter().filter_map(|showing| {
            let mut local = self.next_local(self.earliest_local(after), true)?;
            loop {
                match self.moment(local, *showing) {
                    Some(moment) if moment > after => return Some(moment),
                    _ => local = self.next_local(local, false)?,
                }
            }
        });
        turns.min()
    }

    /// The last turn that is not after a moment.
    #[must_use]
    pub fn last(&self, moment: Timestamp) -> Option<Timestamp> {
        if let Timing::Every(interval) = self.timing {
            return interval_turn(moment, interval, 0);
        }
        let turns = self.showings().iter().filter_map(|showing| {
            let mut local = self.previous_local(self.latest_local(moment), true)?;
            loop {
                match self.moment(local, *showing) {
                    Some(turn) if turn <= moment => return Some(turn),
                    _ => local = self.previous_local(local, false)?,
                }
            }
        });
        turns.max()
    }

    /// What is to be done now, when all turns through `served` are done with, by a coordinator that is up since then.
    #[must_use]
    pub fn decide(&self, served: Timestamp, up_since: Timestamp, now: Timestamp) -> Decision {
        let Some(turn) = self.last(now).filter(|turn| *turn > served) else { return Decision::Nothing };
        let missed = self.count(served, turn);
        // A turn that came while the broker was away, say, is late, not missed.
        if turn >= up_since - GRACE || self.catch_up {
            Decision::Due { turn, missed }
        } else {
            Decision::Missed { turn, missed: missed + 1 }
        }
    }

    /// How many turns lie between two moments.
    fn count(&self, after: Timestamp, before: Timestamp) -> u64 {
        if let Timing::Every(interval) = self.timing {
            let between = before.duration_since(after).unsigned_abs().as_secs().saturating_sub(1);
            return between / interval.as_secs().max(1);
        }
        let mut count = 0;
        let mut turn = after;
        while let Some(next) = self.next(turn).filter(|next| *next < before && count < MOST_COUNTED) {
            turn = next;
            count += 1;
        }
        count
    }

    /// A time that comes once a day comes once; one of every hour comes in every hour that passes.
    fn showings(&self) -> &'static [Showing] {
        if self.is_of_every_hour() { &[Showing::First, Showing::Second] } else { &[Showing::First] }
    }

    fn is_of_every_hour(&self) -> bool {
        matches!(&self.timing, Timing::Cron(cron) if cron.is_of_every_hour())
    }

    /// When the zone's clocks show a local time; none when they do not and nobody waits for it.
    fn moment(&self, local: DateTime, showing: Showing) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } if showing == Showing::First => before.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { after, .. } => after.to_timestamp(local).ok(),
            AmbiguousOffset::Gap { .. } if self.is_of_every_hour() => None,
            // The moment at which the clocks have gone forward.
            AmbiguousOffset::Gap { before, .. } => {
                let behind = before.to_timestamp(local).ok()? + SignedDuration::from_secs(1);
                self.zone.preceding(behind).next().map(|change| change.timestamp())
            }
        }
    }

    /// The earliest local time that can still come after a moment: clocks that go back soon show earlier ones.
    fn earliest_local(&self, after: Timestamp) -> DateTime {
        let soon = after + SignedDuration::from_hours(24);
        let changes = self.zone.following(after).take_while(|change| change.timestamp() <= soon);
        let offset = changes.map(|change| change.offset()).chain([self.zone.to_offset(after)]).min();
        offset.unwrap_or(jiff::tz::Offset::UTC).to_datetime(after)
    }

    /// The latest local time that can have come before a moment.
    fn latest_local(&self, moment: Timestamp) -> DateTime {
        let lately = moment - SignedDuration::from_hours(24);
        let offset = self.zone.to_offset(lately).max(self.zone.to_offset(moment));
        offset.to_datetime(moment)
    }

    fn next_local(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        match &self.timing {
            Timing::Every(_) => None,
            Timing::Cron(cron) => cron.next(from, inclusive),
            Timing::Daily(time) => {
                let today = from.date().to_datetime(*time);
                let is_to_come = if inclusive { today >= from } else { today > from };
                if is_to_come { Some(today) } else { Some(from.date().tomorrow().ok()?.to_datetime(*time)) }
            }
        }
    }

    fn previous_local(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        match &self.timing {
            Timing::Every(_) => None,
            Timing::Cron(cron) => cron.previous(from, inclusive),
            Timing::Daily(time) => {
                let today = from.date().to_datetime(*time);
                let has_come = if inclusive { today <= from } else { today < from };
                if has_come { Some(today) } else { Some(from.date().yesterday().ok()?.to_datetime(*time)) }
            }
        }
    }
}

/// The turn of an interval at or before a moment, or so many after that one.
fn interval_turn(moment: Timestamp, interval: Duration, turns_on: i64) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_secs()).ok()?.max(1);
    let turn = moment.as_second().div_euclid(interval).checked_add(turns_on)?;
    Timestamp::from_second(turn.checked_mul(interval)?).ok()
}

fn name_of(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("the host's")
}

/// What of all schedules comes next: so many turns, in their order.
#[must_use]
pub fn upcoming(schedules: &[Schedule], after: Timestamp, count: usize) -> Vec<(Timestamp, &Schedule)> {
    let mut turns: Vec<(Timestamp, &Schedule)> = Vec::new();
    for schedule in schedules {
        let first = schedule.next(after);
        let following = std::iter::successors(first, |turn| schedule.next(*turn));
        turns.extend(following.take(count).map(|turn| (turn, schedule)));
    }
    // Of turns at one moment, those of the schedule that stands first come first.
    turns.sort_by_key(|(turn, _)| *turn);
    turns.truncate(count);
    turns
}

#[cfg(test)]
mod tests;
