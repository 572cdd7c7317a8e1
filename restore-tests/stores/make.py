"""Makes a bucket or a container, which the program never does: one signed request, with nothing but Python.

make.py s3|azure PORT NAME ID SECRET
"""
import base64, hashlib, hmac, sys, time, urllib.error, urllib.request
from email.utils import formatdate


def s3(host, name, key, secret):
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    empty = hashlib.sha256(b"").hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": stamp}
    names = ";".join(headers)
    canonical = "\n".join(["PUT", f"/{name}", "", *(f"{k}:{v}" for k, v in headers.items()), "", names, empty])
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = ("AWS4" + secret).encode()
    for part in [*scope.split("/"), text]:
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signing.hex()}"
    return f"http://{host}/{name}", headers


def azure(host, name, account, secret):
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    canonical = "".join(f"{k}:{v}\n" for k, v in headers.items())
    resource = f"/{account}/{account}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical + resource
    signature = hmac.new(base64.b64decode(secret), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
    return f"http://{host}/{account}/{name}?restype=container", headers


def main():
    kind, port, name, key, secret = sys.argv[1:]
    for _ in range(100):
        url, headers = {"s3": s3, "azure": azure}[kind](f"127.0.0.1:{port}", name, key, secret)
        request = urllib.request.Request(url, method="PUT", headers=headers)
        try:
            urllib.request.urlopen(request, timeout=20)
            return
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read().decode()}"
            if error.code < 500:
                break
        except OSError as error:
            said = str(error)
        # A server that has just begun is not always ready when it says so.
        time.sleep(0.1)
    sys.exit(said)


main()
