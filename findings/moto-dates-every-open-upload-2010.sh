#!/usr/bin/env bash
# moto 5.2.5: list_multipart_uploads says of every open upload that it began on 2010-11-10.
#
# `Initiated` tells when an upload began, and who sweeps uploads that clients have left open goes by it. A good
# guess is that a double of S3 which dates objects by the clock dates uploads so as well. It has one constant for
# all: an upload of this second is years old, in the server mode and with the decorator alike.
#
# Who meets this: whoever tests a sweeper of old uploads. With moto it aborts the upload that is running, or the
# test passes whatever the sweeper does with the age. Real time is to be had from other stores.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'moto[s3]==5.2.5' boto3==1.44.8 botocore==1.44.8
AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_DEFAULT_REGION=us-east-1 "$folder/venv/bin/python" - <<'PY'
from datetime import UTC, datetime

import boto3
from moto import mock_aws

with mock_aws():
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="object", Body=b"1")
    client.create_multipart_upload(Bucket="bucket", Key="upload")
    written = client.list_objects_v2(Bucket="bucket")["Contents"][0]["LastModified"]
    begun = client.list_multipart_uploads(Bucket="bucket")["Uploads"][0]["Initiated"]
now = datetime.now(UTC)
print(f"now                  {now:%Y-%m-%d}")
print(f"object, LastModified {written:%Y-%m-%d}")
print(f"upload, Initiated    {begun:%Y-%m-%d}")
assert abs((now - written).total_seconds()) < 3600, "objects are dated otherwise now"
assert f"{begun:%Y-%m-%d}" == "2010-11-10", "uploads are dated otherwise now"
print("as described: an upload of this second is from 2010")
PY
