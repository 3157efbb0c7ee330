"""Lists a whole simulated Google Cloud with Google's own clients, each in its own way, and prints what they
found as JSON. Fails when two of them disagree, or when an answer does not fit the discovery documents that
come with the discovery client.

usage: google_proof.py ROOT_URL KEY_FILE
needs: google-api-python-client google-auth requests google-cloud-compute google-cloud-resource-manager
"""

import json
import os
import sys
import urllib.parse
from pathlib import Path


def without_proxy():
    """The simulator is on this machine; a proxy could only be in the way."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)


without_proxy()

import google.auth.transport.requests  # noqa: E402
import googleapiclient  # noqa: E402
import googleapiclient.discovery  # noqa: E402
import googleapiclient.errors  # noqa: E402
import requests  # noqa: E402
from google.api_core import exceptions  # noqa: E402
from google.cloud import compute_v1, resourcemanager_v3  # noqa: E402
from google.oauth2 import credentials as oauth2_credentials  # noqa: E402
from google.oauth2 import service_account  # noqa: E402

SCOPES = [
    "https://www.googleapis.com/auth/compute.readonly",
    "https://www.googleapis.com/auth/cloud-platform.read-only",
]
DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"


class Schemas:
    """A discovery document as a judge of answers."""

    def __init__(self, name):
        self.schemas = json.loads((DOCUMENTS / name).read_text())["schemas"]
        self.problems = []
        self.judged = 0

    def judge(self, schema, value):
        self.judged += 1
        self._judge({"$ref": schema}, value, schema)

    def _judge(self, schema, value, path):
        def bad(why):
            self.problems.append(f"{path}: {why}")

        if "$ref" in schema:
            return self._judge(self.schemas[schema["$ref"]], value, path)
        kind = schema.get("type", "any")
        if kind == "object":
            if not isinstance(value, dict):
                return bad(f"an object is wanted, not {value!r}")
            known, others = schema.get("properties", {}), schema.get("additionalProperties")
            for key, item in value.items():
                inner = known.get(key, others)
                if inner is None:
                    bad(f"no such field: {key}")
                else:
                    self._judge(inner, item, f"{path}.{key}")
        elif kind == "array":
            if not isinstance(value, list):
                return bad(f"a list is wanted, not {value!r}")
            for number, item in enumerate(value):
                self._judge(schema["items"], item, f"{path}[{number}]")
        elif kind == "string":
            if not isinstance(value, str):
                return bad(f"a text is wanted, not {value!r}")
            if "enum" in schema and value not in schema["enum"]:
                bad(f"not one of the values: {value}")
            if schema.get("format") in ("int64", "uint64") and not value.lstrip("-").isdigit():
                bad(f"not a number in a text: {value}")
        elif kind == "boolean":
            if not isinstance(value, bool):
                bad(f"true or false is wanted, not {value!r}")
        elif kind in ("integer", "number"):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                bad(f"a number is wanted, not {value!r}")


def tally(projects, firewalls, instances, unreadable):
    """What one client found. `firewalls` are entries per firewall."""
    return {
        "projects": projects,
        "firewalls": len(firewalls),
        "rules": sum(firewalls),
        "instances": instances,
        "unreadable_projects": sorted(unreadable),
    }


def raw(root, credentials):
    """No client at all: each answer as it is, before the judges."""
    session = google.auth.transport.requests.AuthorizedSession(credentials)
    compute = Schemas("compute.v1.json")
    managers = {version: Schemas(f"cloudresourcemanager.{version}.json") for version in ("v1", "v3")}

    def pages(schemas, schema, path, **parameters):
        while True:
            answer = session.get(root + path, params=parameters)
            if answer.status_code == 403:
                raise PermissionError(answer.json()["error"]["message"])
            answer.raise_for_status()
            page = answer.json()
            schemas.judge(schema, page)
            if schemas.problems:
                sys.exit(f"an answer to {path} does not fit the discovery document:\n" + "\n".join(schemas.problems[:50]))
            yield page
            if "nextPageToken" not in page:
                return
            parameters["pageToken"] = page["nextPageToken"]

    def items(schemas, schema, path, key="items", **parameters):
        for page in pages(schemas, schema, path, **parameters):
            yield from page.get(key, [])

    projects = list(items(managers["v1"], "ListProjectsResponse", "/v1/projects", "projects"))
    searched = list(items(managers["v3"], "SearchProjectsResponse", "/v3/projects:search", "projects"))
    assert [one["projectId"] for one in projects] == [one["projectId"] for one in searched]
    firewalls, instances, unreadable = [], 0, []
    for project in projects:
        base = "/compute/v1/projects/" + urllib.parse.quote(project["projectId"], safe="")
        try:
            for firewall in items(compute, "FirewallList", base + "/global/firewalls", maxResults=3):
                firewalls.append(len(firewall.get("allowed", [])) + len(firewall.get("denied", [])))
            aggregated = 0
            for page in pages(compute, "InstanceAggregatedList", base + "/aggregated/instances", returnPartialSuccess="true"):
                aggregated += sum(len(scope.get("instances", [])) for scope in page["items"].values())
            by_zone = 0
            for zone in items(compute, "ZoneList", base + "/zones"):
                by_zone += len(list(items(compute, "InstanceList", f"{base}/zones/{zone['name']}/instances", maxResults=2)))
            assert aggregated == by_zone, f"{aggregated} instances in all zones together, {by_zone} zone by zone"
            instances += aggregated
        except PermissionError:
            unreadable.append(project["projectId"])
    judges = [compute, *managers.values()]
    return tally(len(projects), firewalls, instances, unreadable), sum(judge.judged for judge in judges)


def discovery(root, credentials):
    """google-api-python-client, as the Python tool uses it: instances zone by zone."""

    def build(service, version, path):
        # The client drops the service's path when it is given a root.
        options = {"api_endpoint": root + path}
        return googleapiclient.discovery.build(
            service, version, credentials=credentials, client_options=options, static_discovery=True
        )

    def items(collection, key="items", **parameters):
        request = collection.list(**parameters)
        while request is not None:
            page = request.execute()
            yield from page.get(key, [])
            request = collection.list_next(request, page)

    manager, compute = build("cloudresourcemanager", "v1", "/"), build("compute", "v1", "/compute/v1/")
    projects = list(items(manager.projects(), "projects"))
    firewalls, instances, unreadable = [], 0, []
    for project in projects:
        of_project = {"project": project["projectId"]}
        try:
            for firewall in items(compute.firewalls(), **of_project):
                firewalls.append(len(firewall.get("allowed", [])) + len(firewall.get("denied", [])))
            for zone in items(compute.zones(), **of_project):
                instances += len(list(items(compute.instances(), zone=zone["name"], **of_project)))
        except googleapiclient.errors.HttpError as error:
            if error.resp.status != 403:
                raise
            unreadable.append(project["projectId"])
    return tally(len(projects), firewalls, instances, unreadable)


def generated(root, credentials):
    """The generated (GAPIC) clients: instances of all zones at once."""
    options = {"api_endpoint": root}
    given = {"credentials": credentials, "transport": "rest", "client_options": options}
    projects = list(resourcemanager_v3.ProjectsClient(**given).search_projects())
    firewall_client, instance_client = compute_v1.FirewallsClient(**given), compute_v1.InstancesClient(**given)
    firewalls, instances, unreadable = [], 0, []
    for project in projects:
        try:
            for firewall in firewall_client.list(project=project.project_id):
                firewalls.append(len(firewall.allowed) + len(firewall.denied))
            request = compute_v1.AggregatedListInstancesRequest(project=project.project_id, max_results=5)
            for _, scope in instance_client.aggregated_list(request=request):
                instances += len(scope.instances)
        except exceptions.Forbidden:
            unreadable.append(project.project_id)
    return tally(len(projects), firewalls, instances, unreadable)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root, key_file = sys.argv[1].rstrip("/"), sys.argv[2]
    credentials = service_account.Credentials.from_service_account_file(key_file, scopes=SCOPES)
    # The generated clients sign for themselves, whatever they are told; so the exchange is made here.
    credentials.refresh(google.auth.transport.requests.Request(session=requests.Session()))
    exchanged = oauth2_credentials.Credentials(token=credentials.token)
    signing = service_account.Credentials.from_service_account_file(key_file)
    judged_tally, judged = raw(root, credentials)
    found = {
        "raw": judged_tally,
        "discovery": discovery(root, exchanged),
        "generated": generated(root, exchanged),
        "generated_self_signed": generated(root, signing),
    }
    print(json.dumps({**found["raw"], "clients": sorted(found), "answers_judged": judged}, indent=2))
    if any(one != found["raw"] for one in found.values()):
        sys.exit("the clients disagree: " + json.dumps(found))


main()
