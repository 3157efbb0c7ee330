//! The kinds of things that the simulated Resource Manager and Key Vault know.

use super::providers::{
    Definition, compute, disk, insights, key_vault, mysql, network, postgresql, resources, sql, storage, web,
};

/// A kind of thing in a subscription: a resource, a list below a resource, or a detail of one.
///
/// What there is of a kind is numbered from 0 in each subscription, in the order of the list. Of a detail
/// ([`Kind::InstanceView`], [`Kind::WebConfiguration`], [`Kind::TransparentDataEncryption`] and the
/// configurations of database servers) there is one for each of its parents, with the parent's number. Of
/// a list below a resource ([`Kind::SqlDatabase`], [`Kind::VaultKey`], [`Kind::VaultSecret`]) each parent
/// has as many as the next, and the numbers run on over all parents of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A location that the subscription may use.
    Location,
    /// A resource group.
    ResourceGroup,
    /// A virtual machine.
    VirtualMachine,
    /// How a virtual machine is doing: one for each machine.
    InstanceView,
    /// A managed disk.
    Disk,
    /// A network interface.
    NetworkInterface,
    /// A public address.
    PublicIpAddress,
    /// A load balancer.
    LoadBalancer,
    /// An application gateway.
    ApplicationGateway,
    /// A network security group with its rules.
    NetworkSecurityGroup,
    /// A storage account.
    StorageAccount,
    /// A MySQL single server.
    MysqlServer,
    /// A MySQL flexible server.
    MysqlFlexibleServer,
    /// The settings of a MySQL flexible server: one array for each server.
    MysqlFlexibleConfigurations,
    /// A PostgreSQL single server.
    PostgresqlServer,
    /// The settings of a PostgreSQL single server: one array for each server.
    PostgresqlConfigurations,
    /// A PostgreSQL flexible server.
    PostgresqlFlexibleServer,
    /// The settings of a PostgreSQL flexible server: one array for each server.
    PostgresqlFlexibleConfigurations,
    /// A logical SQL server.
    SqlServer,
    /// A database of a logical SQL server; the first of each server is `master`.
    SqlDatabase,
    /// Whether a database is encrypted: one for each database.
    TransparentDataEncryption,
    /// A web app.
    WebApp,
    /// The settings of a web app: one for each app.
    WebConfiguration,
    /// A key vault.
    Vault,
    /// A key in a vault, without its value.
    VaultKey,
    /// A secret in a vault, without its value.
    VaultSecret,
    /// The log profile of a subscription, if it has one.
    LogProfile,
    /// A diagnostic setting of a subscription.
    DiagnosticSetting,
}

impl Kind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::ALL.len();

    /// All kinds.
    pub const ALL: [Self; 28] = [
        Self::Location,
        Self::ResourceGroup,
        Self::VirtualMachine,
        Self::InstanceView,
        Self::Disk,
        Self::NetworkInterface,
        Self::PublicIpAddress,
        Self::LoadBalancer,
        Self::ApplicationGateway,
        Self::NetworkSecurityGroup,
        Self::StorageAccount,
        Self::MysqlServer,
        Self::MysqlFlexibleServer,
        Self::MysqlFlexibleConfigurations,
        Self::PostgresqlServer,
        Self::PostgresqlConfigurations,
        Self::PostgresqlFlexibleServer,
        Self::PostgresqlFlexibleConfigurations,
        Self::SqlServer,
        Self::SqlDatabase,
        Self::TransparentDataEncryption,
        Self::WebApp,
        Self::WebConfiguration,
        Self::Vault,
        Self::VaultKey,
        Self::VaultSecret,
        Self::LogProfile,
        Self::DiagnosticSetting,
    ];

    /// What the kind is made of.
    pub(super) fn definition(self) -> &'static Definition {
        match self {
            Self::Location => &resources::LOCATION,
            Self::ResourceGroup => &resources::RESOURCE_GROUP,
            Self::VirtualMachine => &compute::VIRTUAL_MACHINE,
            Self::InstanceView => &compute::INSTANCE_VIEW,
            Self::Disk => &disk::DISK,
            Self::NetworkInterface => &network::NETWORK_INTERFACE,
            Self::PublicIpAddress => &network::PUBLIC_IP_ADDRESS,
            Self::LoadBalancer => &network::LOAD_BALANCER,
            Self::ApplicationGateway => &network::APPLICATION_GATEWAY,
            Self::NetworkSecurityGroup => &network::NETWORK_SECURITY_GROUP,
            Self::StorageAccount => &storage::STORAGE_ACCOUNT,
            Self::MysqlServer => &mysql::SERVER,
            Self::MysqlFlexibleServer => &mysql::FLEXIBLE_SERVER,
            Self::MysqlFlexibleConfigurations => &mysql::FLEXIBLE_CONFIGURATIONS,
            Self::PostgresqlServer => &postgresql::SERVER,
            Self::PostgresqlConfigurations => &postgresql::CONFIGURATIONS,
            Self::PostgresqlFlexibleServer => &postgresql::FLEXIBLE_SERVER,
            Self::PostgresqlFlexibleConfigurations => &postgresql::FLEXIBLE_CONFIGURATIONS,
            Self::SqlServer => &sql::SERVER,
            Self::SqlDatabase => &sql::DATABASE,
            Self::TransparentDataEncryption => &sql::TRANSPARENT_DATA_ENCRYPTION,
            Self::WebApp => &web::SITE,
            Self::WebConfiguration => &web::CONFIGURATION,
            Self::Vault => &key_vault::VAULT,
            Self::VaultKey => &key_vault::KEY,
            Self::VaultSecret => &key_vault::SECRET,
            Self::LogProfile => &insights::LOG_PROFILE,
            Self::DiagnosticSetting => &insights::DIAGNOSTIC_SETTING,
        }
    }

    /// The kind that this one lies below, if it does.
    pub fn parent(self) -> Option<Self> {
        self.definition().parent
    }

    /// Its provider's namespace: `Microsoft.Compute`.
    pub fn namespace(self) -> &'static str {
        self.definition().namespace
    }

    /// The permission that reading it takes.
    pub fn permission(self) -> &'static str {
        self.definition().permission
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_a_number_and_a_path_of_its_own() {
        let mut paths = HashSet::new();
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            let definition = kind.definition();
            assert!(paths.insert((definition.namespace, definition.types)), "{kind:?}");
            assert_eq!(definition.types.len() > 1, definition.parent.is_some(), "{kind:?}");
        }
    }
}
