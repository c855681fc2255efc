#!/usr/bin/env bash
# docker-credential-ecr-login 0.12.0: "credentials not found in native keychain", status 1, for a registry that is no
# ECR, and with the same words and status where AWS refuses the caller or is not reached.
#
# The protocol of credential helpers has these words for "there is no login", and docker goes on without one. So a good
# guess is that a caller may believe them: forget the credentials that it has, or remember that there are none. After a
# short outage of AWS or of the way to it, that throws away a password that is valid for twelve hours, and the pull
# fails with "no basic auth credentials", which sends people to look for a missing login. Standard error is empty; the
# reason is in ~/.ecr/log alone.
#
# Who meets this: registries, mirrors and tools that call helpers and keep what they answer (docker keeps nothing).
# Keep the old credentials until the registry refuses them, and ask again soon.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
module=github.com/awslabs/amazon-ecr-credential-helper/ecr-login@v0.12.0
source=$(go mod download -json "$module" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')
(cd "$source" && go build -buildvcs=false -o "$folder/" ./cli/docker-credential-ecr-login)

cat >aws.py <<'PY'
"""An AWS that refuses every caller."""
import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = b'{"__type": "ExpiredTokenException", "message": "The security token is expired"}'
        self.send_response(400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
mkfifo port
python3 aws.py >port &
server=$!
read -r port <port

ask() { # host endpoint
    printf %s "$1" | env -i PATH=/usr/bin:/bin HOME="$folder" AWS_EC2_METADATA_DISABLED=true \
        AWS_ACCESS_KEY_ID=AKIAEXAMPLE AWS_SECRET_ACCESS_KEY=example AWS_ENDPOINT_URL="$2" \
        ./docker-credential-ecr-login get 2>errors && status=0 || status=$?
    echo " (status $status, $(wc -c <errors) bytes on standard error)"
}
ecr=123456789012.dkr.ecr.eu-central-1.amazonaws.com
none=$(ask quay.io "http://127.0.0.1:$port")
refused=$(ask "$ecr" "http://127.0.0.1:$port")
down=$(ask "$ecr" "http://127.0.0.1:9")
echo "a registry that is no ECR: $none"
echo "AWS refuses the caller:    $refused"
echo "AWS is not reached:        $down"
grep -ho 'ExpiredToken[A-Za-z]*\|connection refused' .ecr/log/* | sort | uniq -c
[ "$none" = "$refused" ] && [ "$none" = "$down" ]
[[ $none == *"credentials not found in native keychain"*"status 1, 0 bytes"* ]]
