//! The event plugins that there are. A new one is a module and a line here.

use proto::catalogue::{ParamError, PluginClass, in_one_line};
use proto::plan::{PluginSpec, Stage};
use proto::subject::Role;
use serde_json::Value;

use crate::plugin::EventPlugin;
use crate::{firewall_rule_event, mock_event};

/// Builds a plugin of its parameters, expanded.
type Build = fn(&Value) -> Result<Box<dyn EventPlugin>, Vec<ParamError>>;

/// The classes that are served.
const SERVED: &[(PluginClass, Build)] =
    &[(mock_event::CLASS, mock_event::build), (firewall_rule_event::CLASS, firewall_rule_event::build)];

const fn planned(name: &'static str) -> PluginClass {
    PluginClass::planned(name, &[Role::Event], Stage::Evaluator)
}

/// The classes that are known by name only.
const PLANNED: &[PluginClass] = &[
    planned("cloudmarker.events.azkvkeynoexpiryevent.AzKVKeyNoExpiryEvent"),
    planned("cloudmarker.events.azkvnonrecoverableevent.AzKVNonRecoverableEvent"),
    planned("cloudmarker.events.azkvsecretnoexpiryevent.AzKVSecretNoExpiryEvent"),
    planned("cloudmarker.events.azlogprofileevent.AzLogProfileEvent"),
    planned("cloudmarker.events.azlogprofilemissingcategoryevent.AzLogProfileMissingCategoryEvent"),
    planned("cloudmarker.events.azlogprofilemissinglocationevent.AzLogProfileMissingLocationEvent"),
    planned("cloudmarker.events.azlogprofileretentionevent.AzLogProfileRetentionEvent"),
    planned("cloudmarker.events.azpostgresconnectionthrottlingevent.AzPostgresConnectionThrottlingEvent"),
    planned("cloudmarker.events.azpostgreslogcheckpointsevent.AzPostgresLogCheckpointsEvent"),
    planned("cloudmarker.events.azpostgreslogconnectionsevent.AzPostgresLogConnectionsEvent"),
    planned("cloudmarker.events.azpostgreslogdisconnectionsevent.AzPostgresLogDisconnectionsEvent"),
    planned("cloudmarker.events.azpostgreslogdurationevent.AzPostgresLogDurationEvent"),
    planned("cloudmarker.events.azpostgreslogretentiondaysevent.AzPostgresLogRetentionDaysEvent"),
    planned("cloudmarker.events.azsqldatabasetdeevent.AzSQLDatabaseTDEEvent"),
    planned("cloudmarker.events.azstorageaccountallowtrustedservicesevent.AzStorageAccountAllowTrustedServicesEvent"),
    planned("cloudmarker.events.azstorageaccountdefaultnetworkaccessevent.AzStorageAccountDefaultNetworkAccessEvent"),
    planned("cloudmarker.events.azstorageaccountsecuretransferevent.AzStorageAccountSecureTransferEvent"),
    planned("cloudmarker.events.azvmdatadiskencryptionevent.AzVMDataDiskEncryptionEvent"),
    planned("cloudmarker.events.azvmextensionevent.AzVMExtensionEvent"),
    planned("cloudmarker.events.azvmosdiskencryptionevent.AzVMOSDiskEncryptionEvent"),
    planned("cloudmarker.events.azwebappclientcertevent.AzWebAppClientCertEvent"),
    planned("cloudmarker.events.azwebapphttp20event.AzWebAppHttp20Event"),
    planned("cloudmarker.events.azwebapphttpsevent.AzWebAppHttpsEvent"),
    planned("cloudmarker.events.azwebapptlsevent.AzWebAppTLSEvent"),
    planned("cloudmarker.events.rdbmsenforcetlsevent.RDBMSEnforceTLSEvent"),
];

/// All classes.
pub fn classes() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class).chain(PLANNED)
}

/// The classes that this program serves.
pub fn served() -> impl Iterator<Item = &'static PluginClass> {
    SERVED.iter().map(|(class, _)| class)
}

/// Builds a plugin of its parameters, expanded.
///
/// # Errors
/// Why it cannot be built, for people.
pub fn build(spec: &PluginSpec, params: &Value) -> Result<Box<dyn EventPlugin>, String> {
    let short = spec.short_class();
    let Some((_, build)) = SERVED.iter().find(|(class, _)| class.short_name() == short) else {
        return Err(format!("this evaluator does not serve the class {}", spec.class));
    };
    build(params).map_err(|errors| in_one_line(&errors))
}
