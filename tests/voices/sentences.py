"""Fifty sentences to say and to hear: numbers, dates, names, questions, abbreviations."""

from __future__ import annotations

SENTENCES = (
    # Everyday speech.
    "Good morning, how can I help you today?",
    "The weather will be sunny with a light breeze in the afternoon.",
    "Please close the window before you leave the office.",
    "She opened the old letter and read it twice.",
    "My brother plays the guitar in a small band.",
    "We walked along the river until it was dark.",
    "I would like a cup of tea with milk, please.",
    "The children were too tired to finish the game.",
    "Nobody knew why the lights went out.",
    "It is easier to ask for help than to wait for it.",
    # Numbers.
    "There are 24 hours in a day and 60 minutes in an hour.",
    "The train from platform 9 leaves in 15 minutes.",
    "She bought 3 apples, 12 eggs and 2 bottles of water.",
    "The bridge is 450 meters long and 30 meters high.",
    "About 75 percent of the seats were already taken.",
    "The book costs $18 and the map costs $7.",
    "He ran 10 kilometers in 52 minutes.",
    "Our new office is on the 4th floor, in room 412.",
    "The temperature fell to 3.5 degrees last night.",
    "More than 2,000 people came to the concert.",
    # Dates and times.
    "The meeting was moved to Monday, March 3rd.",
    "She was born on July 14, 1989.",
    "The shop opens at 9:30 and closes at 6:15.",
    "School starts again in the first week of September.",
    "The contract ends on December 31, 2027.",
    "He called me at 7 p.m. on Friday.",
    "The museum was built in 1904.",
    "We will be on holiday from May 5th to May 20th.",
    "Their flight lands on Tuesday at noon.",
    "In the summer of 1969, two men walked on the moon.",
    # Names.
    "Mary and Peter moved from London to New York.",
    "Charles Darwin sailed around the world for five years.",
    "Have you met Susan Miller from the sales team?",
    "The river Rhine flows through Germany and the Netherlands.",
    "William Shakespeare wrote Hamlet and Macbeth.",
    "George and Emma live near the airport in Chicago.",
    "The train stops in Paris, Brussels and Amsterdam.",
    "Albert Einstein was awarded the Nobel Prize in physics.",
    # Questions.
    "Where did you put the keys to the garage?",
    "Could you tell me what time the next bus leaves?",
    "Why does the sky turn red in the evening?",
    "Do you want to sit inside or outside?",
    "How many people are coming to dinner tonight?",
    "What happens if we miss the last train?",
    # Abbreviations.
    "Dr. Brown will see you now, Mrs. Taylor.",
    "Mr. Wilson works for the BBC in London.",
    "Bring something to eat, e.g. bread, cheese or fruit.",
    "The package weighs 5 kg and is 40 cm long.",
    "The USA and the UK signed the agreement.",
    "Prof. Green lives at 12 Baker St. in the old town.",
)
