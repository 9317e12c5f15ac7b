# CPU only:  docker build -t facestream . && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" facestream anonymize in.mp4 -o out.mp4
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE config.toml ./
COPY facestream facestream
COPY engines engines
COPY pipeline pipeline
COPY train train
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[web]'

FROM python:3.11-slim-bookworm
COPY --from=build /venv /venv
# What a batch did so far, for --resume: mount this folder, since a container's own files go with it.
ENV XDG_STATE_HOME=/state PATH=/venv/bin:$PATH
RUN useradd --create-home face && mkdir -m 777 /state /var/lib/facestream
VOLUME /state
USER face
WORKDIR /data
ENTRYPOINT ["facestream"]
CMD ["--help"]
