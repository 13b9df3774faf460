"""Requests that two engines are asked about: mutations of hostile ones, and what honest people send.

    corpus.py hostile COUNT SEED TESTS    mutations of the requests below TESTS, one JSON object a line
    corpus.py benign COUNT SEED           prose in many languages, code, names, JSON, markdown, as clients send them

The same seed gives the same requests.
"""

import base64
import json
import pathlib
import random
import re
import sys
from urllib.parse import quote, quote_plus

PROSE = {
    "en": [
        "The patient was seen on Monday and asked to return in two weeks.",
        "Please select the option that fits you best, and drop us a line if nothing does.",
        "We can't say when the union of both teams will be complete; it's too early.",
        "Where are the results from the table in chapter 3? I'd like to order a copy.",
        "Don't worry: if you can't come, call us, or write to the front desk.",
        "I have updated my address and set the new one as default.",
        "He said, \"wait & see\" - that was at 10:30; nothing happened since then.",
        "Is 5 > 3 and 2 < 4? Yes, of course: 1 + 1 = 2.",
    ],
    "de": [
        "Die Patientin wurde am Montag gesehen und soll in zwei Wochen wiederkommen.",
        "Können Sie mir bitte sagen, wo die Größe eingetragen wird? Vielen Dank!",
        "Das geht so nicht; wir müssen die Übergabe früher machen.",
        "Schöne Grüße aus Österreich, bis übermorgen um 8 Uhr.",
    ],
    "fr": [
        "L'état du patient s'améliore, aujourd'hui il n'a plus de fièvre.",
        "J'ai reçu l'ordonnance hier ; où est-ce qu'on l'envoie ?",
        "Qu'est-ce que c'est ? C'est l'hôpital d'à côté, près de l'église.",
    ],
    "es": [
        "¿Dónde está la niña? Mañana vendrá con su mamá a las ocho.",
        "Necesito una cita; el año pasado no pude ir, ¡qué lástima!",
    ],
    "it": ["Dov'è l'ambulatorio? È all'angolo, vicino all'università.", "Un po' di tosse, nient'altro; grazie dell'aiuto."],
    "pt": ["Não há vagas amanhã, mas a médica atende às quintas-feiras.", "A mãe e o irmão já estão à espera."],
    "nl": ["'s Ochtends is er weinig tijd; kom liever 's middags.", "De dokter z'n agenda is vol tot en met vrijdag."],
    "pl": ["Pacjentka czuje się lepiej, ale wciąż ma gorączkę.", "Proszę wysłać wyniki na nowy adres: ul. Żółta 5."],
    "cs": ["Příští kontrola je za čtrnáct dní, děkuji.", "Žádost byla přijata a čeká na schválení."],
    "tr": ["İyi günler, randevumu yarın öğleden sonraya alabilir miyim?", "Teşekkürler, görüşmek üzere."],
    "ru": ["Пациент пришёл в понедельник и жалуется на кашель.", "Подскажите, пожалуйста, где взять справку?"],
    "uk": ["Де можна отримати довідку? Дякую за відповідь.", "Об'єкт зачинено до п'ятниці."],
    "el": ["Πού μπορώ να βρω τα αποτελέσματα; Ευχαριστώ πολύ."],
    "ar": ["متى يمكنني الحصول على النتائج؟ شكرا جزيلا."],
    "he": ["מתי אפשר לקבל את התוצאות? תודה רבה."],
    "hi": ["मुझे रिपोर्ट कब मिलेगी? धन्यवाद।"],
    "zh": ["请问什么时候可以拿到结果？谢谢。", "我已经更新了地址，请确认。"],
    "ja": ["結果はいつ受け取れますか。よろしくお願いします。"],
    "ko": ["결과는 언제 받을 수 있나요? 감사합니다."],
    "vi": ["Khi nào tôi có thể nhận kết quả? Cảm ơn bạn rất nhiều."],
}
NAMES = [
    "Sean O'Brien", "Siobhán O'Neill", "N'Golo Kanté", "Chiara D'Angelo", "Jean-Luc L'Écuyer", "Robert \"Bob\" Smith",
    "Anne-Marie d'Arc", "Þórdís Björnsdóttir", "Łukasz Żak", "Mc'Donald & Sons", "José Núñez", "François Müller",
    "Nguyễn Thị Hương", "山田 太郎", "Zoë Krämer-O'Hara", "Null Johnson", "Drew Select", "Joan Union", "Ali Or",
    "Smith, John (Jr.)", "Dr. Who; PhD", "K'nex Ltd.", "Dwayne \"The Rock\" J.", "Ann And", "M. Having",
]
CODE = [
    "fn main() { println!(\"{}\", 1 + 2); }",
    "let total: u32 = items.iter().map(|i| i.price * i.count).sum();",
    "def area(r):\n    return 3.14 * r ** 2\n",
    "for i in range(10):\n    print(f\"{i}: {squares[i]}\")",
    "const sum = (a, b) => a + b;\nexport default sum;",
    "if (a < b && c > d) { return x[0]; }",
    "<ul>\n  <li>one</li>\n  <li>two</li>\n</ul>",
    "body { margin: 0; color: #333; }",
    "git commit -m \"fix: typo\" && git push",
    "cargo test -p parser -- --nocapture",
    "SELECT name, count FROM parts WHERE count > 3 ORDER BY name;",
    "INSERT INTO visits (patient, day) VALUES (7, '2026-01-02');",
    "version: 3\nservices:\n  web:\n    image: example/web:1.2\n",
    "[package]\nname = \"demo\"\nversion = \"0.1.0\"",
    "^[a-z0-9._%+-]+@[a-z0-9.-]+\\.[a-z]{2,}$",
    "public static void main(String[] args) { System.out.println(\"hi\"); }",
    "#include <stdio.h>\nint main(void) { return 0; }",
    "SGVsbG8sIHdvcmxkIQ==",
    "{\"a\": [1, 2, {\"b\": null}]}",
    "\\frac{a}{b} = \\sqrt{x^2 + 1}",
]
MARKDOWN = [
    "# Notes\n\n- first *item*\n- second **item**\n\n> quoted\n",
    "See [the guide](https://docs.example.org/guide?page=2#top) and `code`.",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "1. Open the *settings*\n2. Choose `Save as...`\n3. Done :-)\n",
    "```rust\nlet x = 5;\n```\n\n---\n\n~~old~~ new",
    "![logo](/static/logo.png \"Our logo\")\n\nTerms & conditions apply.",
    "![plan](../images/plan.png)",
]
VALUES = [
    "2026-03-05", "14:30", "+49 (0)30 123456-7", "jane.doe+test@example.org", "https://www.example.org/a/b?c=d&e=f", "12.50 €", "$19.99",
    "50%", "A4/B5", "C:\\Users\\Jane\\notes.txt", "/home/jane/notes.txt", "10.0.0.5", "2001:db8::1", "true", "null", "-1", "1e9",
    "550e8400-e29b-41d4-a716-446655440000", "eyJhbGciOiJFUzI1NiJ9", "a,b;c", "x=y", "#1", "@home", "r&d", "(none)", "*", "?", "N/A", "--", "1/2",
    "#ff8800", "v1.2.3-rc.1+build5", "en-GB,en;q=0.9", "Mon, 02 Mar 2026 10:00:00 GMT", "😀 👍", "½ cup", "“smart quotes”", "C++", "AC/DC",
]
KEYS = [
    "name", "q", "page", "sort", "filter[status]", "items[]", "user.email", "address", "note", "comment", "title", "body", "lang", "city",
    "order", "from", "to", "date", "id", "type", "select", "group", "message", "description", "query", "text", "user_name", "next",
]
PATHS = [
    "/", "/api/v1/patients", "/api/v1/patients/42", "/search", "/static/app.3f9a.js", "/images/logo.png", "/login", "/a%20b/c", "/de/über-uns",
    "/graphql", "/feed.xml", "/files/report%202026.pdf", "/wiki/C%2B%2B", "/v2/orders;version=1", "/users/jane.doe@example.org", "/shop/50%25-off",
]
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
]


def escaped_path(path):
    return quote(path, safe="/%;@:+=")


# What a request is about, and how often. The rates at which engines refuse are told for each: a rule set that refuses SQL refuses a
# question about SQL too, and how many of those there are is our choice.
TOPICS = {"prose": 35, "names": 20, "api": 20, "values": 10, "markdown": 8, "code": 7}


class Benign:
    """Requests as browsers and clients of APIs send them: text stands where people type it, cookies and paths are what programs make."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.topic = "prose"

    def text(self, topic=None):
        r = self.r
        topic = topic or self.topic
        if topic == "api":
            topic = r.choice(["prose", "names", "values", "values"])
        if topic == "code" and r.random() < 0.6:
            return r.choice(CODE)
        if topic == "markdown" and r.random() < 0.6:
            return "\n\n".join(r.choice(MARKDOWN) for _ in range(r.randint(1, 3)))
        if topic == "names" and r.random() < 0.7:
            return r.choice(NAMES)
        if topic == "values" and r.random() < 0.9:
            return r.choice(VALUES) if r.random() < 0.7 else str(r.randint(0, 10 ** r.randint(1, 12)))
        return self.prose()

    def prose(self):
        """Sentences of one language, or clauses of several of its sentences put together."""
        r = self.r
        sentences = PROSE[r.choice(list(PROSE))]
        if r.random() < 0.6:
            return " ".join(r.choice(sentences) for _ in range(r.randint(1, 4)))
        clauses = [clause for sentence in sentences for clause in re.split(r"(?<=[,;:.?!。，；])\s*", sentence) if clause]
        text = " ".join(r.choice(clauses) for _ in range(r.randint(1, 5)))
        return text if r.random() < 0.7 else f"{r.choice(NAMES)}: {text}"

    def words(self):
        """What is typed into a search field."""
        r = self.r
        if self.topic in ("names", "values") or r.random() < 0.3:
            return self.text("names" if r.random() < 0.6 else "values")
        if self.topic == "code":
            return r.choice(CODE).split("\n")[0]
        words = self.prose().split()
        at = r.randrange(len(words))
        return " ".join(words[at : at + r.randint(1, 5)])

    def document(self, depth=0):
        r = self.r
        kind = r.random()
        if depth < 3 and kind < 0.35:
            return {r.choice(KEYS): self.document(depth + 1) for _ in range(r.randint(1, 5))}
        if depth < 3 and kind < 0.5:
            return [self.document(depth + 1) for _ in range(r.randint(1, 4))]
        if kind < 0.6:
            return r.choice([True, False, None, r.randint(-5, 10000), round(r.random() * 100, 2)])
        return self.text()

    def pairs(self, most):
        """Fields of a form: one or two of them long, the rest what is asked beside them."""
        r = self.r
        count = r.randint(1, most)
        long = r.randint(1, 2)
        return [(r.choice(KEYS), self.text() if at < long else self.text(r.choice(["names", "values", "values"]))) for at in range(count)]

    def query(self):
        r = self.r
        pairs = [("q", self.words())] if r.random() < 0.6 else []
        pairs += [(r.choice(KEYS), self.text("values")) for _ in range(r.randint(0 if pairs else 1, 3))]
        return "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in pairs)

    def cookie(self):
        r = self.r
        jar = {
            "session": base64.urlsafe_b64encode(r.randbytes(24)).decode().rstrip("="),
            "sid": "s%3A" + r.randbytes(16).hex() + "." + quote(base64.b64encode(r.randbytes(20)).decode(), safe=""),
            "theme": r.choice(["dark", "light", "auto"]),
            "lang": r.choice(["en-GB", "de", "fr-CA"]),
            "consent": f"v2.necessary.{r.choice(['all', 'none'])}",
            "_ga": f"GA1.2.{r.randint(10**8, 10**10)}.{r.randint(10**9, 2 * 10**9)}",
            "user": quote(r.choice(NAMES), safe=""),
            "seen": quote("2026-03-05T14:30:00+01:00", safe=""),
            "_jwt": ".".join(base64.urlsafe_b64encode(r.randbytes(n)).decode().rstrip("=") for n in (27, 60, 64)),
        }
        names = r.sample(list(jar), r.randint(1, 4))
        if r.random() < 0.05:
            jar["settings"] = quote(json.dumps({"v": 2, "sound": True, "columns": ["name", "date"]}), safe="")
            names.append("settings")
        return "; ".join(f"{k}={jar[k]}" for k in names)

    def request(self):
        r = self.r
        self.topic = r.choices(list(TOPICS), TOPICS.values())[0]
        headers = [
            ("Host", "clinic.example"),
            ("User-Agent", r.choice(AGENTS)),
            ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            ("Accept-Language", r.choice(["en-GB,en;q=0.5", "de-DE,de;q=0.8,en;q=0.3", "fr"])),
            ("Accept-Encoding", "gzip, deflate, br"),
        ]
        if r.random() < 0.5:
            headers.append(("Cookie", self.cookie()))
        if r.random() < 0.4:
            referer = "https://clinic.example" + escaped_path(r.choice(PATHS))
            headers.append(("Referer", referer + ("?" + self.query() if r.random() < 0.5 else "")))
        uri = escaped_path(r.choice(PATHS))
        shape = "json" if self.topic == "api" and r.random() < 0.7 else r.choice(["get", "get", "form", "json", "multipart", "xml"])
        if shape == "get":
            if r.random() < 0.85:
                uri += "?" + self.query()
            return out(self.topic, shape, "GET", uri, headers, b"")
        return out(self.topic, shape, r.choice(["POST", "POST", "PUT"]), uri, *self.body(shape, headers))

    def body(self, shape, headers):
        r = self.r
        if shape == "form":
            body = "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in self.pairs(8)).encode()
            kind = "application/x-www-form-urlencoded"
        elif shape == "json":
            body = json.dumps({k: self.document() for k in r.sample(KEYS, r.randint(1, 6))}, ensure_ascii=r.random() < 0.3).encode()
            kind = "application/json"
        elif shape == "xml":
            items = "".join(f"<item id=\"{i}\" lang=\"{xml(v[:20])}\">{xml(v)}</item>" for i, (_, v) in enumerate(self.pairs(5)))
            body = f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<list>{items}</list>".encode()
            kind = "application/xml"
        else:
            boundary = "----WebKitFormBoundary" + "".join(r.choice("abcdefABCDEF0123456789") for _ in range(16))
            parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n' + v.replace("\n", "\r\n") + "\r\n" for k, v in self.pairs(4)]
            if r.random() < 0.5:
                name = r.choice(["report.pdf", "photo 1.jpg", "scan_2026-01-02.png", "Befund Müller.docx"])
                parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n' + self.text() + "\r\n")
            body = ("".join(parts) + f"--{boundary}--\r\n").encode()
            kind = f"multipart/form-data; boundary={boundary}"
        return headers + [("Content-Type", kind), ("Content-Length", str(len(body)))], body


def xml(text):
    text = "".join(c for c in text if c in "\t\n" or ord(c) >= 32)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


class Hostile:
    def __init__(self, seed, tests):
        self.r = random.Random(seed)
        self.benign = Benign(seed + 1)
        self.requests = [request for path in sorted(pathlib.Path(tests).rglob("*.yaml")) for request in raw_requests(path)]
        payloads = set()
        for uri, body in ((u, b) for _, u, _, b in self.requests):
            payloads.update(v for v in re.split(r"[?&]", uri) if len(v) > 6)
            if "\n" not in body:
                payloads.update(v for v in body.split("&") if 6 < len(v) < 600)
        self.payloads = sorted(p.split("=", 1)[-1] for p in payloads if p.split("=", 1)[-1])

    def request(self):
        r = self.r
        if r.random() < 0.5:
            method, uri, headers, body = r.choice(self.requests)
            headers = list(headers)
            for _ in range(r.randint(0, 3)):
                place = r.random()
                if place < 0.4:
                    uri = self.mutate(uri)
                elif place < 0.8:
                    body = self.mutate(body)
                elif headers:
                    at = r.randrange(len(headers))
                    headers[at] = (headers[at][0], self.mutate(headers[at][1]))
            shape = "test"
        else:
            payload = r.choice(self.payloads)
            for _ in range(r.randint(0, 2)):
                payload = self.mutate(payload)
            method, uri, headers, body, shape = self.placed(payload)
        uri = re.sub(r"[\x00-\x20\x7f#]", lambda m: quote(m[0]), uri) or "/"
        headers = [(n, re.sub(r"[\x00\r\n]", "", v).strip(" \t")) for n, v in headers]
        body = body.encode("utf-8", "surrogatepass")
        headers = [(n, str(len(body)) if n.lower() == "content-length" else v) for n, v in headers]
        return out("hostile", shape, method, uri, headers, body)

    def placed(self, payload):
        r = self.r
        headers = [("Host", "localhost"), ("User-Agent", AGENTS[0]), ("Accept", "*/*")]
        shape = r.choice(["query", "form", "json", "xml", "multipart", "cookie", "header", "path"])
        other = self.benign.text()
        if shape == "query":
            return "GET", f"/get?x={quote_plus(other)}&y={payload}", headers, "", shape
        if shape == "path":
            return "GET", f"/get/{payload}", headers, "", shape
        if shape == "cookie":
            return "GET", "/get", headers + [("Cookie", f"a={quote(other[:30])}; b={payload}")], "", shape
        if shape == "header":
            return "GET", "/get", headers + [(r.choice(["Referer", "X-Thing", "User-Agent"]), payload)], "", shape
        plain = payload if r.random() < 0.5 else unquoted(payload)
        if shape == "form":
            body, kind = f"x={quote_plus(other)}&y={payload}", "application/x-www-form-urlencoded"
        elif shape == "json":
            body, kind = json.dumps({"x": other, "y": [plain, {"z": plain}] if r.random() < 0.3 else plain}), "application/json"
        elif shape == "xml":
            body, kind = f"<a b=\"{xml(other)}\"><c>{xml(plain)}</c></a>", "text/xml"
            if r.random() < 0.3:
                body = f"<a b=\"{xml(plain)}\"><c>{xml(other)}</c></a>"
        else:
            body = f"--bound\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n{other}\r\n--bound\r\nContent-Disposition: form-data; name=\"y\"\r\n\r\n{plain}\r\n--bound--\r\n"
            kind = "multipart/form-data; boundary=bound"
        return "POST", "/post", headers + [("Content-Type", kind), ("Content-Length", "0")], body, shape

    def mutate(self, text):
        r = self.r
        if not text:
            return text
        start = r.randrange(len(text))
        end = min(len(text), start + r.randint(1, 12))
        piece = text[start:end]
        change = r.randrange(12)
        if change == 0:
            piece = piece.swapcase()
        elif change == 1:
            piece = quote(piece, safe="")
        elif change == 2:
            piece = quote(quote(piece, safe=""), safe="")
        elif change == 3:
            piece = piece.replace(" ", r.choice(["/**/", "+", "%09", "%0a", "%a0", "  "]))
        elif change == 4:
            piece = ""
        elif change == 5:
            piece = piece + piece
        elif change == 6:
            piece = piece + r.choice(["'", '"', "`", "<", ">", ";", "--", "#", "/*", "*/", "\\", "%00", "(", ")", "|", "&", "=", "%u0027", "&#39;", "$("])
        elif change == 7:
            piece = "".join(f"%u00{ord(c):02x}" if ord(c) < 256 else c for c in piece)
        elif change == 8:
            piece = "".join(f"&#x{ord(c):x};" for c in piece)
        elif change == 9:
            piece = "".join(c if r.random() < 0.5 else c.upper() for c in piece)
        elif change == 10:
            piece = r.choice(self.payloads)[:40]
        else:
            piece = "".join(chr(r.randint(33, 126)) for _ in piece)
        return text[:start] + piece + text[end:]


def unquoted(text):
    from urllib.parse import unquote_plus

    return unquote_plus(text)


def raw_requests(path):
    """The requests of one test file, read without a YAML library: what is not understood is left out."""
    for block in re.split(r"\n\s*- input:\n", path.read_text(encoding="utf-8"))[1:]:
        block = re.split(r"\n\s*output:", block)[0]
        if "encoded_request" in block:
            continue
        field = lambda name, default: scalar(block, name, default)
        headers = []
        held = re.search(r"\n( *)headers:\n((?:\1 +.*\n?)+)", "\n" + block)
        for line in held[2].splitlines() if held else []:
            pair = re.match(r"\s*([A-Za-z0-9_.-]+):\s*(.*)$", line)
            if pair:
                headers.append((pair[1], unquote_scalar(pair[2])))
        body = field("data", "")
        method = field("method", "GET")
        if not re.fullmatch(r"[A-Z]{2,12}", method):
            continue
        names = {n.lower() for n, _ in headers}
        if body and "content-type" not in names:
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        if body and "content-length" not in names:
            headers.append(("Content-Length", "0"))
        if any("multipart" in v for _, v in headers):
            body = body.replace("\n", "\r\n")
        yield method, field("uri", "/"), headers, body


def scalar(block, name, default):
    found = re.search(rf"(?:^|\n)( *){name}: ?(.*)", block)
    if not found:
        return default
    text = found[2].strip()
    if text[:1] in "|>":
        lines = []
        for line in block[found.end() + 1 :].splitlines():
            if line.strip() and len(line) - len(line.lstrip()) <= len(found[1]):
                break
            lines.append(line)
        indent = min((len(l) - len(l.lstrip()) for l in lines if l.strip()), default=0)
        return "\n".join(l[indent:] for l in lines)
    return unquote_scalar(text)


def unquote_scalar(text):
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return json.loads(text)
        except ValueError:
            return text[1:-1]
    return text


def out(kind, shape, method, uri, headers, body):
    return {"kind": kind, "shape": shape, "method": method, "uri": uri, "headers": headers, "body": base64.b64encode(body).decode()}


def main():
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    source = Hostile(seed, sys.argv[4]) if kind == "hostile" else Benign(seed)
    for _ in range(count):
        print(json.dumps(source.request()))


if __name__ == "__main__":
    main()
