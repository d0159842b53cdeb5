"""What makes requests valid that no schema can say: parts of them that depend on each other.

Also keeps replications on this machine, and gives requests databases that are there, so that they get somewhere.
"""

import schemathesis

# run.sh makes them.
DATABASES = ["db", "other"]


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    # The database itself is made and deleted; the others are to stay.
    if path.startswith("/{db}/"):
        case.path_parameters["db"] = DATABASES[len(case.path_parameters["db"]) % len(DATABASES)]
    query = case.query or {}
    # A feed of lines is no JSON text, and one that waits takes the time that it is told to.
    if "feed" in query:
        query["feed"] = "normal"
    # The others need what a further parameter or the body says, or a design document that is there.
    if "filter" in query:
        query["filter"] = "_design"
    # A pattern lets a line end stand at a text's end.
    for name in ["next", "fail"]:
        if name in query:
            query[name] = str(query[name]).rstrip("\n")
    # To a schema 1.0 is an integer; to CouchDB it is none.
    if isinstance(case.body, float):
        case.body = int(case.body)
    body = case.body
    if path == "/_replicate" and isinstance(body, dict):
        replication(body)
    elif isinstance(body, dict):
        if "{docid}" in path:
            # The path names it.
            body.pop("_id", None)
        documents = body.get("docs", [body])
        for document in documents if isinstance(documents, list) else []:
            if isinstance(document, dict):
                consistent(document, body.get("new_edits") is False or query.get("new_edits") in (False, "false"))
        # The revision stands in one place: in the query, else in the body, else in the header.
        if "rev" in query:
            body.pop("_rev", None)
            body.pop("_revisions", None)
    if "rev" in query or isinstance(body, dict) and "_rev" in body:
        (case.headers or {}).pop("If-Match", None)


def consistent(document, replicated):
    """The revision is the first of its history, which isn't longer than its generation; what is replicated has one."""
    if str(document.get("_id", "")).startswith("_local/"):
        # Revisions of these are others.
        document.pop("_rev", None)
        document.pop("_revisions", None)
        if replicated:
            document["_rev"] = "0-1"
        return
    # Names that are drawn from programs' own pass by the schema's patterns.
    attachments = document.get("_attachments")
    for members in [document, attachments if isinstance(attachments, dict) else {}]:
        members.pop("__main__", None)
    revisions = document.get("_revisions")
    if isinstance(revisions, dict) and isinstance(revisions.get("start"), (int, float)) and revisions.get("ids"):
        revisions["start"] = max(int(revisions["start"]), len(revisions["ids"]))
        document["_rev"] = f"{revisions['start']}-{revisions['ids'][0]}"
    elif replicated:
        document.setdefault("_rev", "1-a")


def plain(selector):
    """Without fields whose names are paths or operators, which have a form of their own."""
    if isinstance(selector, dict):
        return {name: plain(value) for name, value in selector.items() if not set(name) & set(".$\\")}
    return [plain(element) for element in selector] if isinstance(selector, list) else selector


def replication(body):
    """Once, between databases of this server, by one way to choose."""
    body.update(zip(["source", "target"], DATABASES))
    if body.get("doc_ids") is not None:
        body.pop("selector", None)
    if "selector" in body:
        body["selector"] = plain(body["selector"])
    # What else belongs together, runs for ever, leads elsewhere, or cancels what must run first.
    for field in ["filter", "query_params", "continuous", "cancel", "id", "_local_id", "replication_id", "proxy",
                  "source_proxy", "target_proxy", "socket_options"]:
        body.pop(field, None)
