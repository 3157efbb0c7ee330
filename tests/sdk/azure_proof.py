"""Lists a whole simulated Azure with Microsoft's own clients, unmodified, and prints the ids of what they
found, by kind, as JSON. After the id of a detail comes what the client read of the detail. Says, too, where
answers do not fit the clients' models: fields that those do not have, and values of another type.

usage: AZURE_CLIENT_SECRET=SECRET azure_proof.py ROOT_URL CA_FILE TENANT CLIENT
needs: what tests/sdk/requirements.txt lists
"""

import json
import os
import sys
from collections import defaultdict
from enum import Enum


def without_foreign_settings():
    """The simulator is on this machine, and vouched for by an authority of its own. A proxy would be in the
    way, and the libraries would prefer authorities that these variables name to the one that they are given."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)


without_foreign_settings()

from azure.core.exceptions import ClientAuthenticationError  # noqa: E402
from azure.identity import ClientSecretCredential  # noqa: E402
from azure.keyvault.keys import KeyClient  # noqa: E402
from azure.keyvault.secrets import SecretClient  # noqa: E402
from azure.mgmt.compute import ComputeManagementClient  # noqa: E402
from azure.mgmt.keyvault import KeyVaultManagementClient  # noqa: E402
from azure.mgmt.monitor import MonitorManagementClient  # noqa: E402
from azure.mgmt.mysqlflexibleservers import MySQLManagementClient as MySQLFlexibleClient  # noqa: E402
from azure.mgmt.network import NetworkManagementClient  # noqa: E402
from azure.mgmt.postgresqlflexibleservers import PostgreSQLManagementClient as PostgreSQLFlexibleClient  # noqa: E402
from azure.mgmt.rdbms.mysql import MySQLManagementClient as MySQLSingleClient  # noqa: E402
from azure.mgmt.rdbms.postgresql import PostgreSQLManagementClient as PostgreSQLSingleClient  # noqa: E402
from azure.mgmt.resource.resources import ResourceManagementClient  # noqa: E402
from azure.mgmt.sql import SqlManagementClient  # noqa: E402
from azure.mgmt.storage import StorageManagementClient  # noqa: E402
from azure.mgmt.subscription import SubscriptionClient  # noqa: E402
from azure.mgmt.web import WebSiteManagementClient  # noqa: E402


def parts(identifier):
    """The resource group and the name in a resource id."""
    words = identifier.split("/")
    return words[4], words[-1]


class Judge:
    """Holds answers against the clients' models. These are lenient: they keep what they do not know, and take any
    type for another. Models of the older make (of single servers, monitors, subscriptions, vaults' entries) have
    forgotten what they did not know, and cannot be judged."""

    def __init__(self):
        self.misfits, self.judged = set(), 0

    def judge(self, path, value):
        if isinstance(value, (list, tuple)):
            for item in value:
                self.judge(f"{path}[]", item)
        fields = getattr(value, "_attr_to_rest_field", None)
        if fields is None:
            return
        self.judged += 1
        model, attributes = type(value), {field._rest_name: name for name, field in fields.items()}
        hints = {}
        for kind in reversed(model.__mro__):
            hints.update(vars(kind).get("__annotations__", {}))
        for name, answered in value.items():
            if name not in attributes:
                self.misfits.add(f"{path}: {model.__name__} has no {name}")
                continue
            understood, hint = getattr(value, attributes[name]), str(hints.get(attributes[name], ""))
            if answered is not None and not self.fits(hint, answered, understood):
                self.misfits.add(f"{path}.{name}: {answered!r} is not of the type {hint}")
            self.judge(f"{path}.{name}", understood)

    @staticmethod
    def fits(hint, answered, understood):
        """Whether a value is of its type. Of the plain types the client would make one another."""
        hint = hint.removeprefix("typing.")
        if hint.startswith("Optional["):
            hint = hint[len("Optional["):-1]
        if hint in ("str", "<class 'str'>"):
            return isinstance(answered, str)
        if hint in ("bool", "<class 'bool'>"):
            return isinstance(answered, bool)
        if hint in ("int", "<class 'int'>"):
            return isinstance(answered, int) and not isinstance(answered, bool)
        if "datetime" in hint:
            return not isinstance(understood, str)
        if hint.startswith("ForwardRef('_models."):
            return hasattr(understood, "_attr_to_rest_field")
        if hint.startswith("list["):
            return isinstance(understood, list)
        return True


class Cloud:
    def __init__(self, root, authority_file, tenant, client, secret):
        self.root, self.authority_file, self.tenant, self.client = root, authority_file, tenant, client
        self.credential = self.credential_with(secret)
        self.found = defaultdict(list)
        self.judge = Judge()

    def credential_with(self, secret):
        return ClientSecretCredential(
            self.tenant,
            self.client,
            secret,
            authority=self.root,
            disable_instance_discovery=True,
            connection_verify=self.authority_file,
        )

    def manager(self, client, *subscription):
        return client(self.credential, *subscription, base_url=self.root, connection_verify=self.authority_file)

    def note(self, kind, items):
        """Keeps the ids; hands the items on."""
        items = list(items)
        for item in items:
            self.found[kind].append(item.id)
            self.judge.judge(kind, item)
        return items

    def note_detail(self, kind, item, detail, *read):
        """Keeps the id of what a detail belongs to, and what the client could read of the detail."""
        self.judge.judge(kind, detail)
        texts = [one.value if isinstance(one, Enum) else one for one in read if one is not None]
        self.found[kind].append(" ".join([item.id, *texts]))

    def subscriptions(self):
        client = self.manager(SubscriptionClient)
        for subscription in self.note("Subscription", client.subscriptions.list()):
            yield subscription.subscription_id
            self.note("Location", client.subscriptions.list_locations(subscription.subscription_id))

    def list_subscription(self, subscription):
        self.note("ResourceGroup", self.manager(ResourceManagementClient, subscription).resource_groups.list())
        self.compute(self.manager(ComputeManagementClient, subscription))
        self.network(self.manager(NetworkManagementClient, subscription))
        self.note("StorageAccount", self.manager(StorageManagementClient, subscription).storage_accounts.list())
        self.single_servers("Mysql", self.manager(MySQLSingleClient, subscription), with_settings=False)
        mysql = self.manager(MySQLFlexibleClient, subscription)
        self.flexible_servers("Mysql", mysql.servers.list, mysql)
        self.single_servers("Postgresql", self.manager(PostgreSQLSingleClient, subscription), with_settings=True)
        postgresql = self.manager(PostgreSQLFlexibleClient, subscription)
        self.flexible_servers("Postgresql", postgresql.servers.list_by_subscription, postgresql)
        self.sql(self.manager(SqlManagementClient, subscription))
        self.web(self.manager(WebSiteManagementClient, subscription))
        self.vaults(self.manager(KeyVaultManagementClient, subscription))
        monitor = self.manager(MonitorManagementClient, subscription)
        self.note("LogProfile", monitor.log_profiles.list())
        self.note("DiagnosticSetting", monitor.subscription_diagnostic_settings.list())

    def compute(self, client):
        for machine in self.note("VirtualMachine", client.virtual_machines.list_all()):
            view = client.virtual_machines.instance_view(*parts(machine.id))
            self.note_detail("InstanceView", machine, view, *(status.code for status in view.statuses or []))
        self.note("Disk", client.disks.list())

    def network(self, client):
        self.note("NetworkInterface", client.network_interfaces.list_all())
        self.note("PublicIpAddress", client.public_ip_addresses.list_all())
        self.note("LoadBalancer", client.load_balancers.list_all())
        self.note("ApplicationGateway", client.application_gateways.list_all())
        for group in self.note("NetworkSecurityGroup", client.network_security_groups.list_all()):
            self.note("SecurityRule", group.security_rules)

    def settings(self, kind, client, server):
        settings = list(client.configurations.list_by_server(*parts(server.id)))
        self.note_detail(kind, server, settings, *(setting.name for setting in settings))

    def single_servers(self, product, client, with_settings):
        for server in self.note(f"{product}Server", client.servers.list()):
            if with_settings:
                self.settings(f"{product}Configurations", client, server)

    def flexible_servers(self, product, list_servers, client):
        for server in self.note(f"{product}FlexibleServer", list_servers()):
            self.settings(f"{product}FlexibleConfigurations", client, server)

    def sql(self, client):
        for server in self.note("SqlServer", client.servers.list()):
            group, name = parts(server.id)
            for database in self.note("SqlDatabase", client.databases.list_by_server(group, name)):
                encryption = client.transparent_data_encryptions.get(group, name, database.name, "current")
                self.note_detail("TransparentDataEncryption", database, encryption, encryption.state)

    def web(self, client):
        for site in self.note("WebApp", client.web_apps.list()):
            configuration = client.web_apps.get_configuration(*parts(site.id))
            self.note_detail("WebConfiguration", site, configuration, configuration.min_tls_version)

    def vaults(self, client):
        for vault in self.note("Vault", client.vaults.list_by_subscription()):
            # A vault's address is no subdomain of the service that its tokens are for; the clients would refuse.
            given = {"verify_challenge_resource": False, "connection_verify": self.authority_file}
            address = vault.properties.vault_uri
            keys = KeyClient(address, self.credential, **given)
            self.note("VaultKey", keys.list_properties_of_keys())
            secrets = SecretClient(address, self.credential, **given)
            self.note("VaultSecret", secrets.list_properties_of_secrets())


def refusal(cloud, secret):
    """What the client says when the secret is wrong."""
    try:
        cloud.credential_with(secret + "-not").get_token("https://management.azure.com/.default")
    except ClientAuthenticationError as error:
        return str(error)
    sys.exit("a wrong secret was found good")


def main():
    secret = os.environ.get("AZURE_CLIENT_SECRET")
    if len(sys.argv) != 5 or not secret:
        sys.exit(__doc__)
    cloud = Cloud(*sys.argv[1:], secret)
    for subscription in cloud.subscriptions():
        cloud.list_subscription(subscription)
    proof = {
        "found": cloud.found,
        "refusal": refusal(cloud, secret),
        "misfits": sorted(cloud.judge.misfits),
        "judged": cloud.judge.judged,
    }
    print(json.dumps(proof, indent=1))


main()
