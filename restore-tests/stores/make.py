"""What the program never does with a store, by signed requests, with nothing but Python.

make.py azure PORT NAME ACCOUNT SECRET: makes a container.
make.py s3 PORT NAME ID SECRET: makes a bucket.
make.py lock PORT NAME ID SECRET DAYS: makes a bucket that locks every new object for so long, in mode COMPLIANCE.
make.py lockable PORT NAME ID SECRET: makes a bucket that can lock objects, and locks none by itself.
make.py versions PORT NAME ID SECRET: prints `KEY VERSION KIND LATEST` of every version, a line each.
make.py each PORT NAME ID SECRET: does what the lines of its input say and prints the status of each:
  `delete KEY [VERSION]`, `lock KEY VERSION SECONDS` (mode COMPLIANCE), `junk KEY` (puts 1000 bytes), `again KEY VERSION` (puts the bytes of that version once more).
make.py do PORT NAME ID SECRET: makes the requests of its input, an object of JSON a line (`method`, `key`, and perhaps
  `headers`, `text` or `file`), several at once; prints of each `status`, `headers` and the SHA-256 of the body.
"""
import base64, hashlib, hmac, json, re, sys, time, urllib.error, urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from urllib.parse import quote


class Bucket:
    def __init__(self, port, name, key, secret):
        self.host, self.name, self.key, self.secret = f"127.0.0.1:{port}", name, key, secret

    def request(self, *what, **more):
        return send(self.signed(*what, **more))

    def signed(self, method, path="", query=(), body=b"", more=()):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        headers = {"content-md5": md5, "host": self.host, "x-amz-content-sha256": digest, "x-amz-date": stamp, **dict(more)}
        headers = dict(sorted(headers.items()))
        path = quote(f"/{self.name}{path}")
        text = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in sorted(query))
        names = ";".join(headers)
        canonical = "\n".join([method, path, text, *(f"{n}:{v}" for n, v in headers.items()), "", names, digest])
        scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signing = ("AWS4" + self.secret).encode()
        for part in [*scope.split("/"), to_sign]:
            signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signing.hex()}"
        )
        url = f"http://{self.host}{path}" + (f"?{text}" if text else "")
        return urllib.request.Request(url, method=method, headers=headers, data=body or None)

    def do(self, line):
        what = json.loads(line)
        body = what.get("text", "").encode()
        if "file" in what:
            with open(what["file"], "rb") as file:
                body = file.read()
        headers = what.get("headers", {}).items()
        request = self.signed(what["method"], "/" + what["key"], body=body, more=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, heads, body = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, heads, body = error.code, error.headers, error.read()
        heads = {name.lower(): value for name, value in heads.items()}
        return json.dumps({"status": status, "headers": heads, "sha256": hashlib.sha256(body).hexdigest()})

    def make(self, *more):
        patiently(lambda: self.request("PUT", more=more))

    def lockable(self):
        self.make(("x-amz-bucket-object-lock-enabled", "true"))

    def lock(self, days):
        self.lockable()
        rule = f"<Mode>COMPLIANCE</Mode><Days>{days}</Days>"
        body = f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{rule}"
        body += "</DefaultRetention></Rule></ObjectLockConfiguration>"
        patiently(lambda: self.request("PUT", query=[("object-lock", "")], body=body.encode()))

    def versions(self):
        query, found = [("versions", "")], []
        while True:
            status, text = self.request("GET", query=query)
            assert status == 200, text
            for kind, one in re.findall(r"<(Version|DeleteMarker)>(.*?)</\1>", text, re.S):
                of = lambda name: re.search(f"<{name}>(.*?)</{name}>", one, re.S).group(1)
                found.append((of("Key"), of("VersionId"), kind, of("IsLatest")))
            if "<IsTruncated>true" not in text:
                return found
            key, version = (re.search(f"<{n}>(.*?)</{n}>", text).group(1) for n in ("NextKeyMarker", "NextVersionIdMarker"))
            query = [("versions", ""), ("key-marker", key), ("version-id-marker", version)]

    def one(self, what, key, version=None, seconds=None):
        query = [("versionId", version)] if version else []
        if what == "lock":
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + int(seconds)))
            body = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
            return self.request("PUT", f"/{key}", [("retention", ""), *query], body.encode())[0]
        if what == "delete":
            return self.request("DELETE", f"/{key}", query)[0]
        if what == "junk":
            return self.request("PUT", f"/{key}", body=b"junk" * 250)[0]
        status, body = self.request("GET", f"/{key}", query)
        return self.request("PUT", f"/{key}", body=body.encode("latin-1"))[0] if status == 200 else status


def azure(port, name, account, secret):
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    canonical = "".join(f"{k}:{v}\n" for k, v in headers.items())
    resource = f"/{account}/{account}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + canonical + resource
    signature = hmac.new(base64.b64decode(secret), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
    url = f"http://127.0.0.1:{port}/{account}/{name}?restype=container"
    return send(urllib.request.Request(url, method="PUT", headers=headers))


def send(request):
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode("latin-1")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("latin-1")
    except OSError as error:
        return 599, str(error)


def patiently(act):
    """A server that has just begun is not always ready when it says so."""
    for _ in range(100):
        status, said = act()
        if status < 300:
            return
        if status < 500:
            break
        time.sleep(0.1)
    sys.exit(f"{status} {said}")


def main():
    what, port, name, key, secret, *more = sys.argv[1:]
    bucket = Bucket(port, name, key, secret)
    if what == "azure":
        patiently(lambda: azure(port, name, key, secret))
    elif what == "s3":
        bucket.make()
    elif what == "lock":
        bucket.lock(*more)
    elif what == "lockable":
        bucket.lockable()
    elif what == "do":
        with ThreadPoolExecutor(8) as threads:
            print("\n".join(threads.map(bucket.do, sys.stdin)))
    elif what == "versions":
        print("\n".join(" ".join(line) for line in bucket.versions()))
    else:
        print("\n".join(str(bucket.one(*line.split())) for line in sys.stdin))


main()
