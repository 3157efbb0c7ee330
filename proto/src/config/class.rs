//! The class that a configuration means.

use super::suggest;
use crate::catalogue::PluginClass;

/// The class of a name: by its full name, by its last part alone (`MockCloud`), or, where only the last part is
/// known, by that.
///
/// ```
/// use proto::catalogue::PluginClass;
/// use proto::config::find_class;
/// use proto::plan::Stage;
/// use proto::subject::Role;
/// let mock = PluginClass::planned("cloudmarker.clouds.mockcloud.MockCloud", &[Role::Cloud], Stage::Collector);
/// for name in ["cloudmarker.clouds.mockcloud.MockCloud", "MockCloud", "elsewhere.MockCloud"] {
///     assert_eq!(find_class(name, &[&mock]).map(|class| class.name), Some(mock.name));
/// }
/// assert!(find_class("mockcloud", &[&mock]).is_none());
/// ```
#[must_use]
pub fn find_class<'a>(name: &str, classes: &[&'a PluginClass]) -> Option<&'a PluginClass> {
    let exact = classes.iter().find(|class| class.name == name);
    exact.or_else(|| classes.iter().find(|class| class.short_name() == last_part(name))).copied()
}

/// Whether a name leads to a class by its last part only, so that the rest of it is wrong.
pub(super) fn is_misnamed(name: &str, class: &PluginClass) -> bool {
    name != class.name && name != class.short_name()
}

/// What to say of a name that leads to no class.
pub(super) fn unknown_class(name: &str, classes: &[&PluginClass]) -> String {
    let short = last_part(name);
    let near = suggest::nearest(short, classes.iter().map(|class| class.short_name()));
    if let Some(class) = near.and_then(|near| find_class(near, classes)) {
        return format!("unknown plugin class `{name}`; did you mean `{}`?", class.name);
    }
    let mut known: Vec<&str> =
        classes.iter().filter(|class| is_of_kind(class, name)).map(|class| class.short_name()).collect();
    if known.is_empty() {
        known = classes.iter().map(|class| class.short_name()).collect();
    }
    format!("unknown plugin class `{name}` (known: {})", known.join(", "))
}

/// Whether a class stands in the same package (`clouds`, `events`, ...) as a name says.
fn is_of_kind(class: &PluginClass, name: &str) -> bool {
    let package = |name: &str| name.split('.').nth(1).map(str::to_owned);
    package(name).is_some() && package(class.name) == package(name)
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
