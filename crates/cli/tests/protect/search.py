import http.server, json, sqlite3, threading, urllib.parse

lock = threading.Lock()
db = sqlite3.connect(":memory:", check_same_thread=False)
db.executescript("""
create table people (id integer primary key, name text, city text);
insert into people (name, city) values ('anna', 'Bergen'), ('bela', 'Pecs'), ('carl', 'Ulm');
create table secrets (word text);
insert into secrets values ('swordfish');
""")


class Search(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = query.get("name", [""])[0]
        try:
            # As it must never be done.
            with lock:
                rows = db.execute(f"select id, name, city from people where name = '{name}'").fetchall()
            status, body = 200, json.dumps(rows)
        except sqlite3.Error as error:
            status, body = 500, f"sqlite3.OperationalError: {error}"
        body = body.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 9000), Search).serve_forever()
