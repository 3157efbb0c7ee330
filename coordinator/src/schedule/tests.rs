//! A year passes at once: turns over the changes of clocks, and what is decided about them.

use super::*;

fn schedule(text: &str, zone: &str) -> Schedule {
    let config = ScheduleConfig {
        timing: Timing::parse(text).unwrap(),
        timezone: Some(zone.to_owned()),
        ..ScheduleConfig::default()
    };
    Schedule::new(&config, vec![Key::new("a").unwrap()]).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The turns after a moment until another, with the offset that clocks have then.
fn turns(schedule: &Schedule, after: &str, until: &str) -> Vec<String> {
    let until = at(until);
    let turns = std::iter::successors(schedule.next(at(after)), |turn| schedule.next(*turn));
    let turns: Vec<Timestamp> = turns.take_while(|turn| *turn <= until).collect();
    // Looking back finds the same turns, from wherever one looks.
    for pair in turns.windows(2) {
        let second = SignedDuration::from_secs(1);
        for look in [pair[0], pair[0] + second, pair[1] - second] {
            assert_eq!(schedule.last(look), Some(pair[0]), "looking back from {look}");
        }
    }
    turns.iter().map(|turn| schedule.local(*turn).strftime("%d %H:%M:%S %:z").to_string()).collect()
}

#[test]
fn a_day_passes_as_the_clock_shows_it() {
    let daily = schedule("00:00", "Europe/Berlin");
    // 23 and 25 hours apart where the clocks change.
    let spring = turns(&daily, "2026-03-28T12:00Z", "2026-03-30T12:00Z");
    assert_eq!(spring, ["29 00:00:00 +01:00", "30 00:00:00 +02:00"]);
    let autumn = turns(&daily, "2026-10-24T12:00Z", "2026-10-26T12:00Z");
    assert_eq!(autumn, ["25 00:00:00 +02:00", "26 00:00:00 +01:00"]);
}

#[test]
fn a_time_that_no_clock_shows_comes_when_the_clocks_have_gone_forward() {
    for text in ["02:30", "30 2 * * *", "0 30 2 * * *"] {
        let turns = turns(&schedule(text, "Europe/Berlin"), "2026-03-27T12:00Z", "2026-03-30T12:00Z");
        assert_eq!(turns, ["28 02:30:00 +01:00", "29 03:00:00 +02:00", "30 02:30:00 +02:00"], "{text}");
    }
    let new_york = turns(&schedule("02:30", "America/New_York"), "2026-03-07T12:00Z", "2026-03-09T12:00Z");
    assert_eq!(new_york, ["08 03:00:00 -04:00", "09 02:30:00 -04:00"]);
    // The first moment that is not shown, and the first one that is again.
    for text in ["02:00", "03:00"] {
        let turns = turns(&schedule(text, "Europe/Berlin"), "2026-03-28T12:00Z", "2026-03-29T12:00Z");
        assert_eq!(turns, ["29 03:00:00 +02:00"], "{text}");
    }
}

#[test]
fn a_time_that_clocks_show_twice_comes_once() {
    for text in ["02:30", "30 2 * * *"] {
        let turns = turns(&schedule(text, "Europe/Berlin"), "2026-10-23T12:00Z", "2026-10-26T12:00Z");
        assert_eq!(turns, ["24 02:30:00 +02:00", "25 02:30:00 +02:00", "26 02:30:00 +01:00"], "{text}");
    }
    let new_york = turns(&schedule("1:30", "America/New_York"), "2026-10-31T12:00Z", "2026-11-02T12:00Z");
    assert_eq!(new_york, ["01 01:30:00 -04:00", "02 01:30:00 -05:00"]);
    // Asked between the two showings, and in the second.
    let berlin = schedule("02:30", "Europe/Berlin");
    for between in ["2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:29Z", "2026-10-25T01:30Z"] {
        assert_eq!(berlin.next(at(between)), Some(at("2026-10-26T01:30Z")), "{between}");
        assert_eq!(berlin.last(at(between)), Some(at("2026-10-25T00:30Z")), "{between}");
    }
}

#[test]
fn half_an_hour_is_a_change_too() {
    let zone = "Australia/Lord_Howe";
    // From 02:00 to 02:30, on 4 October; and back from 02:00 to 01:30, on 5 April.
    let spring = turns(&schedule("02:15", zone), "2026-10-02T20:00Z", "2026-10-04T20:00Z");
    assert_eq!(spring, ["04 02:30:00 +11:00", "05 02:15:00 +11:00"]);
    let autumn = turns(&schedule("01:45", zone), "2026-04-03T20:00Z", "2026-04-05T20:00Z");
    assert_eq!(autumn, ["05 01:45:00 +11:00", "06 01:45:00 +10:30"]);
    let quarters = turns(&schedule("*/15 * * * *", zone), "2026-04-04T14:29Z", "2026-04-04T16:00Z");
    assert_eq!(
        quarters,
        [
            "05 01:30:00 +11:00",
            "05 01:45:00 +11:00",
            "05 01:30:00 +10:30",
            "05 01:45:00 +10:30",
            "05 02:00:00 +10:30",
            "05 02:15:00 +10:30",
            "05 02:30:00 +10:30",
        ]
    );
}

#[test]
fn a_zone_without_changes_has_none() {
    let kolkata = turns(&schedule("02:30", "Asia/Kolkata"), "2026-03-27T00:00Z", "2026-03-30T00:00Z");
    assert_eq!(kolkata, ["28 02:30:00 +05:30", "29 02:30:00 +05:30", "30 02:30:00 +05:30"]);
    let year = schedule("02:30", "UTC");
    let turns: Vec<_> = std::iter::successors(year.next(at("2026-01-01T00:00Z")), |turn| year.next(*turn))
        .take_while(|turn| *turn < at("2027-01-01T00:00Z"))
        .collect();
    assert_eq!(turns.len(), 365);
}

#[test]
fn each_day_of_years_has_its_turn_once_in_all_zones() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns"] {
        for text in ["00:00", "01:59:59", "02:00", "02:30", "3:00", "30 1 * * *", "15 2 * * *"] {
            let schedule = schedule(text, zone);
            let mut turn = at("2025-12-31T12:00Z");
            let mut day = None;
            for _ in 0..800 {
                let next = schedule.next(turn).unwrap();
                assert!(next > turn);
                assert_eq!(schedule.last(next), Some(next));
                let date = schedule.local(next).date();
                assert!(
                    day.is_none_or(|day: jiff::civil::Date| day.tomorrow().unwrap() == date),
                    "{text} {zone} {date}"
                );
                (turn, day) = (next, Some(date));
            }
        }
    }
}

#[test]
fn intervals_are_counted_by_the_time_that_passes() {
    let berlin = schedule("every 6h", "Europe/Berlin");
    let spring = turns(&berlin, "2026-03-28T17:00Z", "2026-03-29T12:00Z");
    let expected = ["28 19:00:00 +01:00", "29 01:00:00 +01:00", "29 08:00:00 +02:00", "29 14:00:00 +02:00"];
    assert_eq!(spring, expected);
    // Every zone has the same turns.
    let other = schedule("every 6h", "America/New_York");
    assert_eq!(other.next(at("2026-03-28T17:00Z")), berlin.next(at("2026-03-28T17:00Z")));
    let seconds = schedule("every 5s", "UTC");
    assert_eq!(seconds.next(at("2026-03-28T17:00:04.999Z")), Some(at("2026-03-28T17:00:05Z")));
    assert_eq!(seconds.next(at("2026-03-28T17:00:05Z")), Some(at("2026-03-28T17:00:10Z")));
    assert_eq!(seconds.last(at("2026-03-28T17:00:05Z")), Some(at("2026-03-28T17:00:05Z")));
}

#[test]
fn what_comes_in_every_hour_comes_in_every_hour_that_passes() {
    let berlin = schedule("30 * * * *", "Europe/Berlin");
    let spring = turns(&berlin, "2026-03-29T00:00Z", "2026-03-29T02:00Z");
    assert_eq!(spring, ["29 01:30:00 +01:00", "29 03:30:00 +02:00"]);
    let autumn = turns(&berlin, "2026-10-25T00:00Z", "2026-10-25T03:00Z");
    assert_eq!(autumn, ["25 02:30:00 +02:00", "25 02:30:00 +01:00", "25 03:30:00 +01:00"]);
    // Of certain hours, those of the gap are one moment.
    let certain = turns(&schedule("*/20 2,3 * * *", "Europe/Berlin"), "2026-03-28T12:00Z", "2026-03-29T12:00Z");
    assert_eq!(certain, ["29 03:00:00 +02:00", "29 03:20:00 +02:00", "29 03:40:00 +02:00"]);
}

#[test]
fn cron_expressions_know_days() {
    let workdays = schedule("0 6 * * 1-5", "Europe/Berlin");
    // The 1st of May 2026 is a Friday.
    assert_eq!(
        turns(&workdays, "2026-04-30T12:00Z", "2026-05-04T12:00Z"),
        ["01 06:00:00 +02:00", "04 06:00:00 +02:00"]
    );
    let last_day = schedule("0 6 L * *", "UTC");
    assert_eq!(last_day.next(at("2028-02-01T00:00Z")), Some(at("2028-02-29T06:00Z")));
    assert_eq!(schedule("0 0 29 2 *", "UTC").last(at("2027-01-01T00:00Z")), Some(at("2024-02-29T00:00Z")));
}

#[test]
fn a_turn_is_served_once_and_others_are_missed_unless_made_up_for() {
    let mut daily = schedule("03:00", "UTC");
    let (first, second) = (at("2026-03-01T03:00Z"), at("2026-03-02T03:00Z"));
    // Up since yesterday.
    let up = at("2026-03-01T12:00Z");
    assert_eq!(daily.decide(first, up, at("2026-03-02T02:59:59Z")), Decision::Nothing);
    assert_eq!(daily.decide(first, up, second), Decision::Due { turn: second, missed: 0 });
    assert_eq!(daily.decide(second, up, at("2026-03-02T03:00:01Z")), Decision::Nothing);
    // Late, as the broker was away; the coordinator was not.
    assert_eq!(daily.decide(first, up, at("2026-03-02T05:00Z")), Decision::Due { turn: second, missed: 0 });
    // A restart over the turn.
    let up = at("2026-03-02T03:00:59Z");
    assert_eq!(daily.decide(first, up, up), Decision::Due { turn: second, missed: 0 });
    // Down for long.
    let up = at("2026-03-05T12:00Z");
    let fifth = at("2026-03-05T03:00Z");
    assert_eq!(daily.decide(first, up, up), Decision::Missed { turn: fifth, missed: 4 });
    daily.catch_up = true;
    assert_eq!(daily.decide(first, up, up), Decision::Due { turn: fifth, missed: 3 });
    assert_eq!(daily.decide(fifth, up, up), Decision::Nothing);
    let often = schedule("every 5s", "UTC");
    let now = at("2026-03-05T12:00:07Z");
    let due = Decision::Due { turn: at("2026-03-05T12:00:05Z"), missed: 1 };
    assert_eq!(often.decide(at("2026-03-05T11:59:55Z"), now, now), due);
}

#[test]
fn audits_with_one_schedule_are_one_and_come_in_their_order() {
    let loaded = proto::config::Loaded::base().with_text(
        "a.yaml",
        "schedule: '1:00'\ntimezone: UTC\naudits: {a: {}, b: {schedule: every 12h}, c: {schedule: '01:00'}}\nrun: [c, b, a]",
    );
    let (config, problems) = proto::config::validate(&loaded, &crate::planner::classes(), None);
    let schedules = Schedule::of_config(&config.unwrap_or_else(|| panic!("{problems:?}"))).unwrap();
    let names: Vec<String> = schedules.iter().map(Schedule::names).collect();
    assert_eq!(names, ["c, a", "b"]);
    assert_ne!(schedules[0].id, schedules[1].id);
    let turns = upcoming(&schedules, at("2026-03-01T00:00Z"), 4);
    let turns: Vec<String> = turns.iter().map(|(turn, schedule)| format!("{turn} {}", schedule.names())).collect();
    let expected =
        ["2026-03-01T01:00:00Z c, a", "2026-03-01T12:00:00Z b", "2026-03-02T00:00:00Z b", "2026-03-02T01:00:00Z c, a"];
    assert_eq!(turns, expected);
}

#[test]
fn the_zone_of_the_host_is_one_zone_named_or_not() {
    let zone = TimeZone::system();
    // A host may have a zone without a name: then nobody can name it.
    let Some(name) = zone.iana_name() else { return };
    let text = format!("schedule: '1:00'\naudits: {{a: {{}}, b: {{timezone: {name}}}}}\nrun: [a, b]");
    let loaded = proto::config::Loaded::base().with_text("a.yaml", &text);
    let (config, problems) = proto::config::validate(&loaded, &crate::planner::classes(), None);
    let schedules = Schedule::of_config(&config.unwrap_or_else(|| panic!("{problems:?}"))).unwrap();
    // Of two with one id, the second would find its turns served.
    let names: Vec<String> = schedules.iter().map(Schedule::names).collect();
    assert_eq!(names, ["a, b"]);
}
