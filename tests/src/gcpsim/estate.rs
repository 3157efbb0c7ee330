//! The estate: what there is in the simulated cloud. Nothing of it is stored; each thing is generated
//! when it is asked for, so that an estate of any size takes the same memory.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::cloudsim::pages::SkipTokens;
use crate::cloudsim::random::Random;

use super::firewall;
use super::instance;
use super::project::Project;
use super::zone;

/// The kinds of things, as the first part of their place in [`Random::at`].
mod kind {
    pub(super) const PROJECT: u64 = 101;
    pub(super) const FIREWALL: u64 = 102;
    pub(super) const INSTANCE: u64 = 103;
    pub(super) const PAGES: u64 = 104;
}

/// How many things there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Projects, those whose deletion is requested among them.
    pub projects: usize,
    /// Projects that are ACTIVE.
    pub active_projects: usize,
    /// Firewalls.
    pub firewalls: usize,
    /// Entries of the firewalls, allowed and denied: as many as a collector makes records of rules.
    pub rules: usize,
    /// Instances.
    pub instances: usize,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            projects: self.projects + other.projects,
            active_projects: self.active_projects + other.active_projects,
            firewalls: self.firewalls + other.firewalls,
            rules: self.rules + other.rules,
            instances: self.instances + other.instances,
        }
    }
}

/// The size of an estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) projects: usize,
    /// How many of the projects, the last ones, are about to be deleted.
    pub(super) deleted: usize,
    /// Things in each project that has no entry of its own.
    pub(super) firewalls: usize,
    pub(super) firewalls_in: BTreeMap<usize, usize>,
    pub(super) instances: usize,
    pub(super) instances_in: BTreeMap<usize, usize>,
    pub(super) zones: usize,
}

/// All that there is, by index, without the oddities that faults add.
#[derive(Debug)]
pub struct Estate {
    seed: u64,
    size: Size,
}

impl Estate {
    pub(super) fn new(seed: u64, size: Size) -> Self {
        Self { seed, size }
    }

    /// How many projects are listed.
    pub fn projects(&self) -> usize {
        self.size.projects
    }

    /// A project.
    pub fn project(&self, project: usize) -> Project {
        let mut random = Random::at(self.seed, &[kind::PROJECT, project as u64]);
        let is_active = project + self.size.deleted < self.size.projects;
        Project::generate(&mut random, project, is_active)
    }

    /// The index of a project, from its id or its number.
    pub fn project_index(&self, id: &str) -> Option<usize> {
        let index = Project::index_of(id).filter(|index| *index < self.size.projects)?;
        let project = self.project(index);
        (project.id() == id || project.number() == id).then_some(index)
    }

    /// The names of the zones; all projects have the same.
    pub fn zones(&self) -> &'static [&'static str] {
        zone::NAMES.get(..self.size.zones).unwrap_or(&zone::NAMES)
    }

    /// The zones of a project, as its list gives them.
    pub fn zone(&self, project: &Project, zone: usize) -> Option<Value> {
        self.zones().get(zone).map(|name| zone::zone(project.id(), zone, name))
    }

    /// The firewalls of a project, each generated when its turn comes.
    pub fn firewalls(&self, project: usize) -> impl Iterator<Item = Value> {
        let site = self.project(project);
        (0..self.firewall_count(project)).map(move |index| self.firewall(&site, project, index))
    }

    /// The instances of a project, zone after zone.
    pub fn instances(&self, project: usize) -> impl Iterator<Item = Value> {
        let site = self.project(project);
        (0..self.zones().len())
            .flat_map(move |zone| self.instances_in(project, zone).map(move |index| (zone, index)))
            .map(move |(zone, index)| self.instance(&site, project, zone, index))
    }

    pub(super) fn firewall_count(&self, project: usize) -> usize {
        self.count(project, self.size.firewalls, &self.size.firewalls_in)
    }

    pub(super) fn firewall(&self, site: &Project, project: usize, index: usize) -> Value {
        firewall::firewall(&mut self.firewall_random(project, index), &firewall::Site { project: site.id(), index })
    }

    /// The numbers of the instances in a zone; the numbers count over all zones.
    pub(super) fn instances_in(&self, project: usize, zone: usize) -> Range<usize> {
        let count = self.count(project, self.size.instances, &self.size.instances_in);
        zone::instances(project, zone, self.zones().len(), count)
    }

    pub(super) fn instance(&self, site: &Project, project: usize, zone: usize, index: usize) -> Value {
        let zone = self.zones().get(zone).copied().unwrap_or_default();
        let mut random = Random::at(self.seed, &[kind::INSTANCE, project as u64, index as u64]);
        instance::instance(&mut random, &instance::Site { project: site, zone, index })
    }

    /// What there is in one project. In one that is about to be deleted there is nothing, since nothing
    /// in it can be read.
    pub fn counts_of(&self, project: usize) -> Counts {
        if project >= self.size.projects {
            return Counts::default();
        }
        let firewalls = self.firewall_count(project);
        let entries = |index| firewall::entries(&mut self.firewall_random(project, index), index);
        Counts {
            projects: 1,
            active_projects: usize::from(self.project(project).is_active()),
            firewalls,
            rules: (0..firewalls).map(entries).sum(),
            instances: self.count(project, self.size.instances, &self.size.instances_in),
        }
    }

    /// What there is in all projects.
    pub fn counts(&self) -> Counts {
        (0..self.size.projects).map(|project| self.counts_of(project)).fold(Counts::default(), |sum, one| sum + one)
    }

    fn count(&self, project: usize, usual: usize, own: &BTreeMap<usize, usize>) -> usize {
        let is_active = project + self.size.deleted < self.size.projects;
        if is_active { own.get(&project).copied().unwrap_or(usual) } else { 0 }
    }

    fn firewall_random(&self, project: usize, index: usize) -> Random {
        Random::at(self.seed, &[kind::FIREWALL, project as u64, index as u64])
    }

    /// The page tokens of the list at `place`.
    pub(super) fn pages(&self, place: &[u64]) -> SkipTokens {
        let place: Vec<u64> = [kind::PAGES].iter().chain(place).copied().collect();
        SkipTokens::of(self.seed, &place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate() -> Estate {
        let size = Size {
            projects: 5,
            deleted: 1,
            firewalls: 30,
            firewalls_in: BTreeMap::from([(1, 0)]),
            instances: 40,
            instances_in: BTreeMap::new(),
            zones: 6,
        };
        Estate::new(7, size)
    }

    #[test]
    fn the_counts_are_those_of_what_is_generated() {
        let estate = estate();
        for project in 0..5 {
            let counts = estate.counts_of(project);
            assert_eq!(estate.firewalls(project).count(), counts.firewalls);
            assert_eq!(estate.instances(project).count(), counts.instances);
        }
        assert_eq!(estate.counts().firewalls, 90);
        assert_eq!(estate.counts().instances, 160);
        assert_eq!((estate.counts().projects, estate.counts().active_projects), (5, 4));
        assert_eq!(estate.counts_of(4), Counts { projects: 1, ..Counts::default() });
    }

    #[test]
    fn a_project_is_known_by_its_own_id_only() {
        let estate = estate();
        let project = estate.project(3);
        assert_eq!(estate.project_index(project.id()), Some(3));
        assert_eq!(estate.project_index(&project.number()), Some(3));
        assert_eq!(estate.project_index("another-prod-3"), None);
        assert_eq!(estate.project_index("web-prod-77"), None);
    }
}
