//! The alerts that there are. A new one is a module and a line here.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::subject::Role;

const fn planned(name: &'static str) -> PluginClass {
    PluginClass::planned(name, &[Role::Alert], Stage::Alerter)
}

/// The classes that are known by name only.
const PLANNED: &[PluginClass] =
    &[planned("cloudmarker.alerts.emailalert.EmailAlert"), planned("cloudmarker.alerts.slackalert.SlackAlert")];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    PLANNED.iter()
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    classes().filter(|class| class.check.is_some())
}
