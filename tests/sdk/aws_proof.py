"""Looks up all events of a simulated AWS with Amazon's own client, unmodified, by its key and by a role, and prints
what it found as JSON: ids by account and region, and the codes of what was refused.

usage: AWS_SECRET_ACCESS_KEY=SECRET aws_proof.py URL KEY_ID ROLE_ARN EXTERNAL_ID
needs: what tests/sdk/requirements.txt lists
"""

import json
import os
import sys
import time

for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

ONCE = Config(retries={"total_max_attempts": 1})
PATIENT = Config(retries={"max_attempts": 20, "mode": "standard"})


def main(url, key, role, external_id):
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]

    def client(service, region, session=None, config=PATIENT, **more):
        session = session or boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret)
        return session.client(service, region_name=region, endpoint_url=url, config=config, **more)

    sts = client("sts", "us-east-1")
    taken = sts.assume_role(RoleArn=role, RoleSessionName="proof", ExternalId=external_id)["Credentials"]
    as_role = boto3.Session(taken["AccessKeyId"], taken["SecretAccessKey"], taken["SessionToken"])
    regions = [region["RegionName"] for region in client("ec2", "us-east-1").describe_regions()["Regions"]]
    found, by_name, refused = {}, {}, {}
    for session in (None, as_role):
        account = client("sts", "us-east-1", session).get_caller_identity()["Account"]
        for region in regions:
            trail = client("cloudtrail", region, session)
            pages = trail.get_paginator("lookup_events").paginate(
                StartTime=time.time() - 89 * 86400, EndTime=time.time() + 60, PaginationConfig={"PageSize": 50})
            events = [event for page in pages for event in page["Events"]]
            for event in events:
                log = json.loads(event["CloudTrailEvent"])
                assert log["eventID"] == event["EventId"] and log["awsRegion"] == region, event
                assert event["EventTime"].timestamp() > 0 and event["Resources"], event
            found[f"{account}/{region}"] = [event["EventId"] for event in events]
            wanted = [{"AttributeKey": "EventName", "AttributeValue": "CreateUser"}]
            pages = trail.get_paginator("lookup_events").paginate(LookupAttributes=wanted)
            by_name[f"{account}/{region}"] = [event["EventName"] for page in pages for event in page["Events"]]

    def code(name, ask):
        try:
            ask()
            refused[name] = None
        except ClientError as error:
            refused[name] = error.response["Error"]["Code"]

    wrong = boto3.Session(aws_access_key_id=key, aws_secret_access_key="not-the-secret")
    nobody = boto3.Session(aws_access_key_id="AKIANOBODY", aws_secret_access_key=secret)
    trail = client("cloudtrail", "us-east-1", config=ONCE)
    code("secret", lambda: client("cloudtrail", "us-east-1", wrong, ONCE).lookup_events())
    code("key", lambda: client("cloudtrail", "us-east-1", nobody, ONCE).lookup_events())
    code("sts secret", lambda: client("sts", "us-east-1", wrong, ONCE).get_caller_identity())
    code("token", lambda: trail.lookup_events(NextToken="nothing"))
    code("times", lambda: trail.lookup_events(StartTime=2000000000, EndTime=1000000000))
    two = [{"AttributeKey": "EventName", "AttributeValue": "a"}, {"AttributeKey": "EventId", "AttributeValue": "b"}]
    code("attributes", lambda: trail.lookup_events(LookupAttributes=two))
    code("role", lambda: sts.assume_role(RoleArn=role, RoleSessionName="proof", ExternalId="another"))
    unchecked = client("cloudtrail", "us-east-1", config=ONCE.merge(Config(parameter_validation=False)))
    code("most", lambda: unchecked.lookup_events(MaxResults=51))
    # Somebody in a hurry.
    codes = set()
    for _ in range(40):
        try:
            trail.lookup_events(MaxResults=1)
        except ClientError as error:
            codes.add(error.response["Error"]["Code"])
    refused["hurry"] = sorted(codes)
    json.dump({"found": found, "by_name": by_name, "refused": refused}, sys.stdout)


main(*sys.argv[1:])
