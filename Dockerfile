# docker build -t couchrep . && docker run --detach -p 127.0.0.1:5984:5984 -e COUCHREP_ADMIN=root:secret -v couchrep:/data couchrep
FROM rust:1.95-slim-bookworm AS build
# The allocator's own build.
RUN apt-get update && apt-get install --yes --no-install-recommends make
WORKDIR /couchrep
COPY . .
# The registry and the target dir outlive one build, so that a change compiles this crate alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/couchrep/target \
    cargo build --release --locked --bin couchrep && cp target/release/couchrep /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 5984 couchrep && install --directory --owner couchrep /data
COPY --from=build /usr/local/bin/couchrep /usr/local/bin/couchrep
USER couchrep
VOLUME /data
EXPOSE 5984
# Without COUCHREP_COUCHDB, any address but loopback needs an admin: COUCHREP_ADMIN=NAME:PASSWORD, or a secret's file, as COUCHREP_ADMIN_FILE=/run/secrets/admin.
ENV COUCHREP_LISTEN=0.0.0.0:5984 COUCHREP_DATA_DIR=/data
STOPSIGNAL SIGTERM
# Asks the address of COUCHREP_LISTEN; it gives up after 5 s by itself.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["couchrep", "health"]
ENTRYPOINT ["couchrep"]
