"""The two strangers that Forecastle talks to: a payment provider with a book, and a mail server that keeps mails.

Both listen on 127.0.0.1 on a free port, in threads of this process.
"""

import json
import re
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Provider:
    """Charges each key once, and declines tokens that begin with tok_declined."""

    def __init__(self):
        self.book = {}
        self.declined = set()
        self.lock = threading.Lock()
        provider = self

        class Desk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                sent = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                self.answer(*provider.charge(self.headers.get("idempotency-key", ""), sent))

            def do_GET(self):
                key = parse_qs(urlsplit(self.path).query).get("idempotency_key", [""])[0]
                with provider.lock:
                    found = provider.book.get(key)
                self.answer(200, {"items": [found[1]] if found else []})

            def answer(self, status, body):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def charges(self):
        with self.lock:
            return [charge for _, charge in self.book.values()]

    def charge(self, key, sent):
        with self.lock:
            if key in self.book:
                earlier, charge = self.book[key]
                return (200, charge) if earlier == sent else (422, {"code": "key_reused"})
            if key in self.declined or str(sent.get("payment_token")).startswith("tok_declined"):
                self.declined.add(key)
                return 402, {"code": "card_declined"}
            charge = {
                "id": f"ch_{len(self.book)}",
                "state": "succeeded",
                "idempotency_key": key,
                **{name: sent.get(name) for name in ("amount_minor", "currency", "reference")},
            }
            self.book[key] = (sent, charge)
            return 201, charge


class MailServer:
    """Takes every mail; `token_for` waits for the token that was mailed to an address."""

    def __init__(self):
        self.mails = []
        self.arrived = threading.Condition()
        server = self

        class Talk(socketserver.StreamRequestHandler):
            def handle(self):
                self.say("220 sink")
                recipient = ""
                while line := self.rfile.readline():
                    word = line.decode("ascii", "replace").strip()
                    verb = word[:4].upper()
                    if verb in ("EHLO", "HELO"):
                        self.say("250 sink")
                    elif verb == "RCPT":
                        recipient = re.sub(r".*<(.*)>.*", r"\1", word)
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        text = self.text()
                        with server.arrived:
                            server.mails.append((recipient, text))
                            server.arrived.notify_all()
                        self.say("250 kept")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

            def text(self):
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b".").decode("utf-8", "replace"))
                return "".join(lines)

            def say(self, words):
                self.wfile.write(words.encode() + b"\r\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", 0), Talk)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token_for(self, address, number, wait_s_max=30):
        """The token of the mail with this number (from 0) to an address."""

        def found():
            return [text for recipient, text in self.mails if recipient == address][number:]

        with self.arrived:
            if not self.arrived.wait_for(found, wait_s_max):
                raise RuntimeError(f"no mail number {number} within {wait_s_max} s to {address}")
            # A long line is folded by a soft break of quoted-printable.
            text = found()[0].replace("=\r\n", "")
        return re.search(r"://\S*#(\S+)", text).group(1)
