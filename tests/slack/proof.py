"""Slack's own client for Python against the tests' stand-in: what it was told, as JSON on one line.

Usage: proof.py API_URL TOKEN
"""

import json
import sys

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

url, token = sys.argv[1:]
client = WebClient(token=token, base_url=url)
told = {}


def refused(call):
    try:
        call()
    except SlackApiError as error:
        return {"error": error.response["error"], "status": error.response.status_code,
                "retry_after": error.response.headers.get("Retry-After")}
    return None


blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "from Python"}}]
# The stand-in answers the first message with a limit.
told["limited"] = refused(lambda: client.chat_postMessage(channel="#ops", text="t", blocks=blocks))
user = client.users_lookupByEmail(email="anna@example.com")["user"]["id"]
channel = client.conversations_open(users=user)["channel"]["id"]
message = client.chat_postMessage(channel=channel, text="t", blocks=blocks)
told["message"] = [message["channel"], message["ts"]]
shared = client.files_upload_v2(channel=channel, filename="python.csv", title="findings", content="a,b\n1,2\n")
told["files"] = len(shared["files"])
told["nobody"] = refused(lambda: client.users_lookupByEmail(email="nobody@example.com"))
told["nowhere"] = refused(lambda: client.chat_postMessage(channel="C0000NONE", text="t", blocks=blocks))
told["wrong_token"] = refused(lambda: WebClient(token="xoxb-wrong", base_url=url).conversations_open(users=user))
print(json.dumps(told))
