"""Takes requests over TLS, with a certificate that an authority made for it just now. Prints the port; then, for each
request, its headers and body as a line of JSON. The authority's certificate is written to the file named first."""

import datetime
import http.server
import ipaddress
import json
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(name, key, issuer, issuer_key, authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        print(json.dumps({"path": self.path, "body": json.loads(body)}), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.HTTPServer):
    def handle_error(self, *_):
        """A client that does not trust us hangs up."""


def main(authority_file, own_file):
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = certificate(name("authority"), authority_key, name("authority"), authority_key, True)
    own = certificate(name("receiver"), key, name("authority"), authority_key, False)
    pem = serialization.Encoding.PEM
    with open(authority_file, "wb") as file:
        file.write(authority.public_bytes(pem))
    with open(own_file, "wb") as file:
        plain = serialization.NoEncryption()
        file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + own.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_file)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main(*sys.argv[1:])
