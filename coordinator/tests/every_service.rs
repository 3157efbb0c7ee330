//! The schema of every operation of every service of a current botocore can be told.

#![allow(clippy::unwrap_used)] // A test: what it cannot read is its failure.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use coordinator::schema::{Models, Service, Side, rule, write_shape};

/// The models of which `tests/setup` gets the wheel.
const WHEEL: &str = "../.testdeps/botocore-1.44.5-py3-none-any.whl";

/// What was seen on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    models: usize,
    operations: usize,
    sides: usize,
    /// Sides with a shape in itself.
    cycles: usize,
    bytes: usize,
    /// The most of one side.
    largest: usize,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.models += other.models;
        self.operations += other.operations;
        self.sides += other.sides;
        self.cycles += other.cycles;
        self.bytes += other.bytes;
        self.largest = self.largest.max(other.largest);
    }
}

/// Counts what is written, and looks for marks in it.
#[derive(Default)]
struct Counted {
    bytes: usize,
    cycles: usize,
    cuts: usize,
}

impl Write for Counted {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.bytes += text.len();
        // A name is written whole.
        self.cycles += usize::from(text == b"$cycle");
        self.cuts += usize::from(text == b"$cut");
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn walk(name: &str, text: &str, seen: &mut Seen) {
    let service = Service::parse(name, text).unwrap();
    seen.models += 1;
    for name in service.operations() {
        seen.operations += 1;
        let operation = service.operation(name).unwrap();
        for side in Side::ALL {
            let mut out = Counted::default();
            if write_shape(&service, &operation, side, &mut out, 0).unwrap() {
                seen.sides += 1;
                seen.cycles += usize::from(out.cycles > 0);
                seen.bytes += out.bytes;
                seen.largest = seen.largest.max(out.bytes);
                assert_eq!(out.cuts, 0, "{}.{name}", service.name);
            }
        }
        assert!(rule(&service, name).unwrap().contains("fail_if"));
    }
}

#[test]
fn every_operation_of_every_service_is_told() {
    let wheel = Path::new(env!("CARGO_MANIFEST_DIR")).join(WHEEL);
    let models = Models::at(&wheel).expect("tests/setup gets the wheel");
    let services = models.services().unwrap();
    assert_eq!(services.len(), 439);
    assert_eq!(services.iter().collect::<BTreeSet<_>>().len(), 439);
    // Each version; `true` stands for the newest.
    let all: Vec<(String, String, bool)> = services
        .iter()
        .flat_map(|service| {
            let versions = models.versions(service);
            let newest = versions.len() - 1;
            versions.into_iter().enumerate().map(move |(at, version)| (service.clone(), version, at == newest))
        })
        .collect();
    let next = Mutex::new(all.into_iter());
    let seen = Mutex::new([Seen::default(); 2]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let models = Models::at(&wheel).unwrap();
                while let Some((service, version, is_newest)) = { next.lock().unwrap().next() } {
                    let mut own = Seen::default();
                    walk(&service, &models.text(&service, Some(&version)).unwrap(), &mut own);
                    seen.lock().unwrap()[usize::from(is_newest)].add(&own);
                }
            });
        }
    });
    let [older, newest] = seen.into_inner().unwrap();
    println!("{newest:?}, and of older versions {older:?}");
    assert_eq!((newest.models, newest.operations, newest.sides), (439, 19_796, 38_009));
    assert_eq!(older.models, 33);
    // The old browser, which expands structures alone, ends on 42 of them with a traceback.
    assert!(newest.cycles >= 42, "{newest:?}");
    assert!(newest.largest < 64 << 20, "{newest:?}");
}
