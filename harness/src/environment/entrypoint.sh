# Starts one server in a container; given to `sh -c` with the program's name and its arguments.
# For the official images and for those of ci/images alike: finds the binaries, drops root.
# NOGO_SECRET: PostgreSQL's superuser password, or the whole of redis.conf.
# NOGO_WAL: where PostgreSQL's log goes, apart from the data; else empty.
# NOGO_COPY: arguments of pg_basebackup, one a line, for a server that begins as a copy; else empty.
set -eu
program=$1
shift

as_user() {
    user=$1
    shift
    if [ "$(id -u)" != 0 ]; then
        exec "$@"
    elif command -v gosu >/dev/null 2>&1; then
        exec gosu "$user" "$@"
    elif setpriv --reuid="$user" --regid="$user" --init-groups true 2>/dev/null; then
        exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"
    elif command -v su-exec >/dev/null 2>&1; then
        exec su-exec "$user" "$@"
    fi
    echo "no gosu, setpriv or su-exec in this image to become $user with" >&2
    exit 127
}

# The container's own layer, not tmpfs: the data must outlive a kill.
data=/var/lib/nogo/data
secret=/var/lib/nogo/secret
umask 077
case $program in
postgres)
    for folder in /usr/lib/postgresql/*/bin /usr/local/bin /usr/bin; do
        if [ -x "$folder/initdb" ]; then
            bin=$folder
        fi
    done
    if [ -z "${bin:-}" ]; then
        echo "no initdb in this image" >&2
        exit 127
    fi
    if [ ! -s "$data/PG_VERSION" ]; then
        mkdir -p "$data"
        chmod 755 /var/lib/nogo
        printf %s "$NOGO_SECRET" >"$secret"
        chown -R postgres "$data" "$secret" 2>/dev/null || true
        if [ -n "${NOGO_COPY:-}" ]; then
            (
                set -f
                IFS='
'
                export PGPASSWORD="$NOGO_SECRET"
                # shellcheck disable=SC2086 # one argument a line
                as_user postgres "$bin/pg_basebackup" $NOGO_COPY -D "$data"
            )
        else
            if [ -n "${NOGO_WAL:-}" ]; then
                mkdir -p "$NOGO_WAL"
                chown postgres "$NOGO_WAL"
            fi
            (as_user postgres "$bin/initdb" --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync \
                --username="$NOGO_ADMIN" --pwfile="$secret" ${NOGO_WAL:+--waldir="$NOGO_WAL"} -D "$data" >/dev/null)
            printf 'host %s all all scram-sha-256\n' all replication >>"$data/pg_hba.conf"
        fi
    fi
    unset NOGO_SECRET NOGO_COPY NOGO_WAL
    cd "$data"
    as_user postgres "$bin/postgres" -D "$data" "$@"
    ;;
redis)
    mkdir -p "$data"
    chmod 755 /var/lib/nogo
    printf %s "$NOGO_SECRET" >"$secret"
    chown -R redis "$data" "$secret" 2>/dev/null || true
    unset NOGO_SECRET
    cd "$data"
    as_user redis redis-server "$secret" --dir "$data" "$@"
    ;;
esac
