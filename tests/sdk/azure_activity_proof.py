"""Lists the Activity Log of a simulated Azure with Microsoft's own client, unmodified, and prints the ids of the events
that it found, by subscription, as JSON; and how the service words a filter that it does not take.

usage: AZURE_CLIENT_SECRET=SECRET azure_activity_proof.py ROOT_URL CA_FILE TENANT CLIENT SUBSCRIPTION...
needs: what tests/sdk/requirements.txt lists
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone

for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(name, None)

from azure.core.exceptions import HttpResponseError  # noqa: E402
from azure.identity import ClientSecretCredential  # noqa: E402
from azure.mgmt.monitor import MonitorManagementClient  # noqa: E402


def main(root, authority, tenant, client, *subscriptions):
    credential = ClientSecretCredential(
        tenant, client, os.environ["AZURE_CLIENT_SECRET"], authority=root, connection_verify=authority,
        disable_instance_discovery=True)
    now = datetime.now(timezone.utc)
    start = (now - timedelta(days=89)).isoformat().replace("+00:00", "Z")
    end = (now + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    found, refused = {}, ""
    for subscription in subscriptions:
        monitor = MonitorManagementClient(
            credential, subscription, base_url=root, connection_verify=authority,
            credential_scopes=["https://management.azure.com/.default"])
        times = f"eventTimestamp ge '{start}' and eventTimestamp le '{end}'"
        events = list(monitor.activity_logs.list(filter=times))
        for event in events:
            assert event.operation_name.value and event.event_timestamp and event.caller, event
        found[subscription] = [event.event_data_id for event in events]
        try:
            list(monitor.activity_logs.list(filter="category eq 'Administrative'"))
        except HttpResponseError as error:
            refused = str(error)
    json.dump({"found": found, "refused": refused}, sys.stdout)


main(*sys.argv[1:])
