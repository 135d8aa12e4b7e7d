#!/bin/sh
# Starts the Redis of docker-compose.yml with a password for each user. The first start makes the passwords; they stay in
# volumes of their own, so that each container sees those that it may use and no other:
#
#   /run/secrets/NAME/redis-url    the URL with the password, for programs with the rights of NAME in users.acl
set -eu

# The user of swarm's images.
readonly READER=10001
users=/etc/redis/compose/users.acl
acl=/data/users.acl

umask 077
grep '^user' "$users" >"$acl.new"
for name in scaler worker producer discord; do
    url=/run/secrets/$name/redis-url
    if [ ! -s "$url" ]; then
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        printf 'redis://%s:%s@redis:6379/0\n' "$name" "$password" >"$url.new"
        chmod 400 "$url.new"
        chown "$READER" "$url.new" "/run/secrets/$name"
        mv "$url.new" "$url"
    fi
    password=$(sed 's/.*:\(.*\)@.*/\1/' "$url")
    sed -i "s/@$name@/$password/" "$acl.new"
done
mv "$acl.new" "$acl"
chown -R redis /data
exec setpriv --reuid=redis --regid=redis --clear-groups redis-server --dir /data --aclfile "$acl" "$@"
