//! Reads Prometheus' text format, and accepts nothing that is not exactly right.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// What was scraped.
#[derive(Debug, Default)]
pub struct Scrape {
    pub samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads a scrape.
    pub fn read(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "the last line does not end");
        let mut scrape = Self::default();
        let (mut helped, mut closed, mut open) = (BTreeSet::new(), BTreeSet::new(), String::new());
        for line in text.lines() {
            let read = scrape.line(line, &mut helped, &mut closed, &mut open);
            read.with_context(|| format!("line {line:?}"))?;
        }
        scrape.check()?;
        Ok(scrape)
    }

    fn line(
        &mut self,
        line: &str,
        helped: &mut BTreeSet<String>,
        closed: &mut BTreeSet<String>,
        open: &mut String,
    ) -> Result<()> {
        let mut begin = |family: &str| {
            if family != open {
                closed.insert(std::mem::replace(open, family.to_owned()));
                ensure!(!closed.contains(family), "the family {family} is told in pieces");
            }
            Ok(())
        };
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("a help without a text")?;
            ensure!(is_name(name) && !help.is_empty(), "not a help");
            ensure!(helped.insert(name.to_owned()), "helped twice");
            return begin(name);
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a type without a type")?;
            ensure!(is_name(name), "not a name");
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "the type {kind}");
            ensure!(self.types.insert(name.to_owned(), kind.to_owned()).is_none(), "typed twice");
            return begin(name);
        }
        ensure!(!line.starts_with('#') && !line.is_empty(), "neither a comment that is known nor a sample");
        let sample = sample(line)?;
        let family = self.family(&sample.name).context("a sample without a type")?;
        ensure!(helped.contains(&family), "a sample without help");
        begin(&family)?;
        ensure!(
            !self.samples.iter().any(|known| known.name == sample.name && known.labels == sample.labels),
            "a sample twice"
        );
        self.samples.push(sample);
        Ok(())
    }

    fn family(&self, name: &str) -> Option<String> {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|ending| name.strip_suffix(ending));
        let known = of_histogram.filter(|family| self.types.get(*family).is_some_and(|kind| kind == "histogram"));
        known.map(str::to_owned).next().or_else(|| self.types.contains_key(name).then(|| name.to_owned()))
    }

    fn check(&self) -> Result<()> {
        for (name, kind) in &self.types {
            let is_right = (kind == "counter") == name.ends_with("_total");
            ensure!(is_right, "{name} is a {kind}: counters, and they alone, end in _total");
        }
        for sample in &self.samples {
            let kind = self.family(&sample.name).and_then(|family| self.types.get(&family)).map(String::as_str);
            ensure!(kind == Some("gauge") || sample.value >= 0.0, "{sample:?} is negative");
        }
        for name in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            self.check_histogram(name)?;
        }
        Ok(())
    }

    fn check_histogram(&self, name: &str) -> Result<()> {
        let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        for bucket in self.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
            let mut labels = bucket.labels.clone();
            let bound = labels.remove("le").context("a bucket without `le`")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
            series.entry(labels).or_default().push((bound, bucket.value));
        }
        for (labels, buckets) in series {
            let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            ensure!(grows, "{name}{labels:?}: the buckets are not cumulative: {buckets:?}");
            let (last, all) = buckets.last().context("no bucket")?;
            let count = self.value(&format!("{name}_count"), &labels).context("no count")?;
            self.value(&format!("{name}_sum"), &labels).context("no sum")?;
            ensure!(last.is_infinite() && *all == count, "{name}{labels:?}: the last bucket is not all");
        }
        Ok(())
    }

    fn value(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<f64> {
        self.samples.iter().find(|sample| sample.name == name && sample.labels == *labels).map(|sample| sample.value)
    }

    /// The sum of the samples of a name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|known| known == value))
        };
        self.samples.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).sum()
    }
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "the name {name}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            ensure!(is_name(label) && !label.contains(':') && !label.starts_with("__"), "the label {label}");
            let (value, after) = quoted(after)?;
            ensure!(labels.insert(label.to_owned(), value).is_none(), "the label {label} twice");
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None => {
                    rest = after.strip_prefix('}').context("the labels do not end")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').context("no space before the value")?;
    ensure!(!value.contains(' '), "more than a value");
    Ok(Sample { name: name.to_owned(), labels, value: value.parse()? })
}

fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                _ => bail!("an escape that is none"),
            }),
            c => value.push(c),
        }
    }
    bail!("a value that does not end")
}

#[test]
fn what_is_wrong_is_refused() {
    let head = "# HELP a_total help\n# TYPE a_total counter\n";
    assert!(Scrape::read(&format!("{head}a_total{{x=\"1\",y=\"a\\\\\\\"\\n\"}} 1\na_total 2\n")).is_ok());
    for wrong in [
        "a_total 1",
        "a_total{x=\"1\"} 1\na_total{x=\"1\"} 2\n",
        "a_total{x=\"1\" 1\n",
        "a_total{x=\"\\t\"} 1\n",
        "a_total{x=\"1\",x=\"2\"} 1\n",
        "a_total{1x=\"1\"} 1\n",
        "a_total -1\n",
        "a_total one\n",
        "a_total  1\n",
        "a_total 1 1700000000\n",
        "b 1\n",
        "# TYPE a_total counter\n",
        "# HELP b help\n# TYPE b counter\nb 1\n",
        "# HELP b_total help\n# TYPE b_total counter\nb_total 1\na_total 1\n",
        "# HELP h help\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
        "# HELP h help\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
    ] {
        assert!(Scrape::read(&format!("{head}{wrong}")).is_err(), "{wrong}");
    }
}
