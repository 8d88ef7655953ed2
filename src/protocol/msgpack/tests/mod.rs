mod forms;
mod messages;
mod properties;
mod vectors;
