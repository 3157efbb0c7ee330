//! The plugin `AzCloud`: the subscriptions of a tenant and the resources in them, as their lists show them.

use proto::catalogue::PluginClass;
use proto::plan::Stage;
use proto::subject::Role;

use super::service::{Base, Items, List, Plugin};
use super::{engine, mysql, nsg};

/// The class.
pub const CLASS: PluginClass = PluginClass {
    name: "cloudmarker.clouds.azcloud.AzCloud",
    roles: &[Role::Cloud],
    stage: Stage::Collector,
    exclusive: false,
    pool: Some("azure"),
    check: Some(&|params| engine::check(&PLUGIN, params)),
};

const fn list(name: &'static str, path: &'static str, api_version: &'static str, items: Items) -> List {
    List { name, base: Base::Subscription, path, api_version, retired: false, items }
}

/// What it reads.
///
/// Reference: the operations `List All` or `List` of each provider under <https://learn.microsoft.com/rest/api/azure/>.
pub(super) static PLUGIN: Plugin = Plugin {
    lists: &[
        list(
            "virtual_machine",
            "/providers/Microsoft.Compute/virtualMachines",
            "2024-07-01",
            Items::Plain(Some("compute")),
        ),
        list("app_gateway", "/providers/Microsoft.Network/applicationGateways", "2024-05-01", Items::Plain(None)),
        list("lb", "/providers/Microsoft.Network/loadBalancers", "2024-05-01", Items::Plain(None)),
        list("nic", "/providers/Microsoft.Network/networkInterfaces", "2024-05-01", Items::Plain(None)),
        list("nsg", "/providers/Microsoft.Network/networkSecurityGroups", "2024-05-01", Items::Records(nsg::records)),
        list("public_ip", "/providers/Microsoft.Network/publicIPAddresses", "2024-05-01", Items::Plain(None)),
        list("storage_account", "/providers/Microsoft.Storage/storageAccounts", "2023-05-01", Items::Plain(None)),
        list("resource_group", "/resourcegroups", "2024-03-01", Items::Plain(None)),
        mysql::SINGLE_SERVERS,
        mysql::FLEXIBLE_SERVERS,
        list("web_apps", "/providers/Microsoft.Web/sites", "2023-12-01", Items::Plain(None)),
    ],
    emits_subscriptions: true,
};
