"""Asks libmodsecurity about requests: `peer.py CONFIG...` reads objects of `corpus.py`, one a line, and answers each with the ids of the
rules that matched, in order."""

import base64
import json
import sys

import libmodsecurity


def main():
    engine, rules, matched = libmodsecurity.ModSecurity(), libmodsecurity.RulesSet(), []
    for path in sys.argv[1:]:
        if rules.load_from_uri(path) < 0:
            sys.exit(f"{path}: {rules.get_parser_error()}")
    engine.set_rule_message_callback(lambda message: matched.append(message.rule_id))
    for line in sys.stdin:
        asked = json.loads(line)
        matched.clear()
        transaction = libmodsecurity.Transaction(engine, rules)
        transaction.process_connection("127.0.0.1", 40000, "127.0.0.1", 80)
        transaction.process_uri(asked["uri"], asked["method"], "1.1")
        for name, value in asked["headers"]:
            transaction.add_request_header(name, value)
        transaction.process_request_headers()
        body = base64.b64decode(asked["body"])
        if body:
            transaction.append_request_body(body)
        transaction.process_request_body()
        print(*matched, flush=False)


if __name__ == "__main__":
    main()
