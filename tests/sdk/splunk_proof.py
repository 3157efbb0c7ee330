"""Splunk's own clients against the tests' HTTP Event Collector: what they sent and were told, as JSON on one line.

Usage: splunk_proof.py HOST PORT http|https CA_FILE TOKEN

splunk-hec-handler (Python) is Splunk's handler for `logging`. It hides what the server answers, so its session is
watched.
"""

import json
import logging
import sys

import requests
from splunk_hec_handler import SplunkHecHandler

host, port, scheme, ca_file, token = sys.argv[1:]
answers = []
send = requests.Session.send


def watched(session, request, **settings):
    answer = send(session, request, **settings)
    answers.append({"path": request.path_url, "status": answer.status_code, "answer": answer.json()})
    return answer


requests.Session.send = watched


def log(token, index, message):
    handler = SplunkHecHandler(
        host, token, port=port, proto=scheme, ssl_verify=ca_file, source="proof", sourcetype="json", index=index
    )
    logger = logging.Logger(f"{token} {index}")
    logger.addHandler(handler)
    try:
        logger.info(message)
    except requests.exceptions.HTTPError:
        pass  # What it was told stands in `answers`.


log(token, "main", {"com": {"id": "python"}})
log(token, "nowhere", {"com": {"id": "no index"}})
log("wrong", "main", {"com": {"id": "no token"}})
print(json.dumps(answers))
