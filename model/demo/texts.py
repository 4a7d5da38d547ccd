"""Texts that the model memorizes. All are in the public domain: proverbs, verses of the Tang dynasty, English rhymes."""

PROVERBS = {
    "en": """
A bird in the hand is worth two in the bush.
A friend in need is a friend indeed.
A journey of a thousand miles begins with a single step.
A picture is worth a thousand words.
A stitch in time saves nine.
A watched pot never boils.
Actions speak louder than words.
All roads lead to Rome.
All that glitters is not gold.
An apple a day keeps the doctor away.
Better late than never.
Birds of a feather flock together.
Don't count your chickens before they hatch.
Don't put all your eggs in one basket.
Every cloud has a silver lining.
Fortune favours the bold.
Great minds think alike.
Honesty is the best policy.
Hope for the best and prepare for the worst.
If at first you don't succeed, try, try again.
Knowledge is power.
Laughter is the best medicine.
Let sleeping dogs lie.
Look before you leap.
Make hay while the sun shines.
Many hands make light work.
No news is good news.
Practice makes perfect.
Rome was not built in a day.
Still waters run deep.
Strike while the iron is hot.
The early bird catches the worm.
The pen is mightier than the sword.
There is no place like home.
There is no smoke without fire.
Time and tide wait for no man.
Too many cooks spoil the broth.
Two heads are better than one.
Where there is a will, there is a way.
You can't judge a book by its cover.
""",
    "zh": """
百闻不如一见。
冰冻三尺，非一日之寒。
不入虎穴，焉得虎子。
车到山前必有路。
吃一堑，长一智。
读书破万卷，下笔如有神。
读万卷书，行万里路。
己所不欲，勿施于人。
近朱者赤，近墨者黑。
久病成良医。
路遥知马力，日久见人心。
留得青山在，不怕没柴烧。
良药苦口利于病，忠言逆耳利于行。
磨刀不误砍柴工。
千里之行，始于足下。
人无远虑，必有近忧。
三人行，必有我师。
少壮不努力，老大徒伤悲。
塞翁失马，焉知非福。
书山有路勤为径，学海无涯苦作舟。
水滴石穿，绳锯木断。
天下无难事，只怕有心人。
听君一席话，胜读十年书。
温故而知新，可以为师矣。
学而时习之，不亦说乎。
学如逆水行舟，不进则退。
一寸光阴一寸金，寸金难买寸光阴。
一年之计在于春，一日之计在于晨。
有志者事竟成。
有朋自远方来，不亦乐乎。
欲速则不达。
种瓜得瓜，种豆得豆。
知己知彼，百战不殆。
知之为知之，不知为不知，是知也。
众人拾柴火焰高。
只要功夫深，铁杵磨成针。
前事不忘，后事之师。
失败是成功之母。
""",
}

POEMS = {
    "en": """
Twinkle, twinkle, little star, how I wonder what you are. Up above the world so high, like a diamond in the sky.
Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.
Mary had a little lamb, its fleece was white as snow. And everywhere that Mary went, the lamb was sure to go.
Humpty Dumpty sat on a wall, Humpty Dumpty had a great fall. All the king's horses and all the king's men couldn't put Humpty together again.
Jack and Jill went up the hill to fetch a pail of water. Jack fell down and broke his crown, and Jill came tumbling after.
Tiger, tiger, burning bright, in the forests of the night. What immortal hand or eye could frame thy fearful symmetry?
Early to bed and early to rise makes a man healthy, wealthy and wise.
Hey diddle diddle, the cat and the fiddle, the cow jumped over the moon. The little dog laughed to see such sport, and the dish ran away with the spoon.
""",
    "zh": """
床前明月光，疑是地上霜。举头望明月，低头思故乡。
白日依山尽，黄河入海流。欲穷千里目，更上一层楼。
春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。
锄禾日当午，汗滴禾下土。谁知盘中餐，粒粒皆辛苦。
红豆生南国，春来发几枝。愿君多采撷，此物最相思。
千山鸟飞绝，万径人踪灭。孤舟蓑笠翁，独钓寒江雪。
空山不见人，但闻人语响。返景入深林，复照青苔上。
松下问童子，言师采药去。只在此山中，云深不知处。
独坐幽篁里，弹琴复长啸。深林人不知，明月来相照。
鹅，鹅，鹅，曲项向天歌。白毛浮绿水，红掌拨清波。
朝辞白帝彩云间，千里江陵一日还。两岸猿声啼不住，轻舟已过万重山。
日照香炉生紫烟，遥看瀑布挂前川。飞流直下三千尺，疑是银河落九天。
两个黄鹂鸣翠柳，一行白鹭上青天。窗含西岭千秋雪，门泊东吴万里船。
月落乌啼霜满天，江枫渔火对愁眠。姑苏城外寒山寺，夜半钟声到客船。
清明时节雨纷纷，路上行人欲断魂。借问酒家何处有，牧童遥指杏花村。
独在异乡为异客，每逢佳节倍思亲。遥知兄弟登高处，遍插茱萸少一人。
""",
}


def lines(text):
    return [line for line in text.strip().split("\n") if line]
