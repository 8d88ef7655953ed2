mod messages;
mod vectors;
