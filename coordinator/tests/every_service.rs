//! The schema of every operation of every service of a current botocore can be told.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use coordinator::schema::{Models, Service, Side, rule, write_shape};

/// The models of which `tests/setup` gets the wheel.
const WHEEL: &str = "../.testdeps/botocore-1.44.5-py3-none-any.whl";

/// What was seen on the way.
#[derive(Debug, Default, PartialEq, Eq)]
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
    let all: Vec<(String, String)> = services
        .iter()
        .flat_map(|service| models.versions(service).into_iter().map(|version| (service.clone(), version)))
        .collect();
    assert_eq!(all.len(), 472);
    let next = Mutex::new(all.into_iter());
    let seen = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let models = Models::at(&wheel).unwrap();
                let mut own = Seen::default();
                while let Some((service, version)) = { next.lock().unwrap().next() } {
                    walk(&service, &models.text(&service, Some(&version)).unwrap(), &mut own);
                }
                let mut seen = seen.lock().unwrap();
                seen.models += own.models;
                seen.operations += own.operations;
                seen.sides += own.sides;
                seen.cycles += own.cycles;
                seen.bytes += own.bytes;
                seen.largest = seen.largest.max(own.largest);
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    println!("{seen:?}");
    assert_eq!((seen.models, seen.operations, seen.sides), (472, 19_796, 38_009));
    // The old browser, which expands structures alone, ends on 42 of them with a traceback.
    assert!(seen.cycles >= 42, "{seen:?}");
    assert!(seen.largest < 64 << 20, "{seen:?}");
}
